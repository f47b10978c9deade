"""What a network costs: parameters and FLOPs, choice by choice, and budgets of them."""
