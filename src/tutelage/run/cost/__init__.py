"""What a network costs: weights and multiply-adds, choice by choice, and budgets of them."""
