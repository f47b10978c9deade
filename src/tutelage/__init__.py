"""Tutelage: neural architecture search in which models teach one another.

A space defines what can be built, a search how choices are relaxed, and a method who teaches whom.
Any three of them make a run. `tutelage.search(...)` starts one, `tutelage.load(...)` returns a
network.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutelage.config import Alphas as Alphas
    from tutelage.config import Data as Data
    from tutelage.config import Retrain as Retrain
    from tutelage.config import Weights as Weights
    from tutelage.data.given import Given as Given
    from tutelage.data.sheet import save_sheet as save_sheet
    from tutelage.data.survey import survey as survey
    from tutelage.methods.afd import AFD as AFD
    from tutelage.methods.cream import Cream as Cream
    from tutelage.methods.dna import DNA as DNA
    from tutelage.methods.ennas import EnNAS as EnNAS
    from tutelage.methods.kdcl import KDCL as KDCL
    from tutelage.methods.lbt import LBT as LBT
    from tutelage.methods.mkd import MKD as MKD
    from tutelage.methods.nes import NES as NES
    from tutelage.methods.okddip import OKDDip as OKDDip
    from tutelage.methods.one import ONE as ONE
    from tutelage.methods.pamkd import PAMKD as PAMKD
    from tutelage.methods.sd_darts import SDDarts as SDDarts
    from tutelage.methods.sgl import SGL as SGL
    from tutelage.methods.single import Single as Single
    from tutelage.multilevel import Level as Level
    from tutelage.multilevel import hypergradient as hypergradient
    from tutelage.problem import Learner as Learner
    from tutelage.problem import Net as Net
    from tutelage.problem import Problem as Problem
    from tutelage.run.networks.files import load as load
    from tutelage.run.retrain import retrain as retrain
    from tutelage.run.search import search as search
    from tutelage.run.trained.predict import Predictor as Predictor
    from tutelage.searches.darts import Darts as Darts
    from tutelage.searches.darts_minus import DartsMinus as DartsMinus
    from tutelage.searches.diverse_paths import DiversePaths as DiversePaths
    from tutelage.searches.drnas import DrNas as DrNas
    from tutelage.searches.evolution import Evolution as Evolution
    from tutelage.searches.gdas import Gdas as Gdas
    from tutelage.searches.pcdarts import PcDarts as PcDarts
    from tutelage.searches.pdarts import PDarts as PDarts
    from tutelage.searches.prdarts import PrDarts as PrDarts
    from tutelage.searches.random import Random as Random
    from tutelage.searches.single_path import SinglePath as SinglePath
    from tutelage.spaces.base import Size as Size
    from tutelage.spaces.cells import DARTS as DARTS
    from tutelage.spaces.cells import S1 as S1
    from tutelage.spaces.cells import S2 as S2
    from tutelage.spaces.cells import S3 as S3
    from tutelage.spaces.cells import S4 as S4
    from tutelage.spaces.chain import CREAM as CREAM
    from tutelage.spaces.chain import ENNAS_S1 as ENNAS_S1
    from tutelage.spaces.chain import ENNAS_S2 as ENNAS_S2
    from tutelage.spaces.chain import ENNAS_S3 as ENNAS_S3
    from tutelage.spaces.chain import NASBENCH_MACRO as NASBENCH_MACRO
    from tutelage.spaces.chain import SHUFFLE as SHUFFLE
    from tutelage.spaces.chain import Chain as Chain
    from tutelage.spaces.genotype import Genotype as Genotype
    from tutelage.spaces.nb201 import NASBENCH201 as NASBENCH201
    from tutelage.trusted import trust as trust
    from tutelage.virtual import Exact as Exact
    from tutelage.virtual import FiniteDifference as FiniteDifference
    from tutelage.virtual import FirstOrder as FirstOrder
    from tutelage.virtual import virtual_step as virtual_step

__version__ = version("tutelage")

_HOMES = {
    "config": ("Alphas", "Data", "Retrain", "Weights"),
    "data.given": ("Given",),
    "data.sheet": ("save_sheet",),
    "data.survey": ("survey",),
    "methods.afd": ("AFD",),
    "methods.cream": ("Cream",),
    "methods.dna": ("DNA",),
    "methods.ennas": ("EnNAS",),
    "methods.kdcl": ("KDCL",),
    "methods.lbt": ("LBT",),
    "methods.mkd": ("MKD",),
    "methods.nes": ("NES",),
    "methods.okddip": ("OKDDip",),
    "methods.one": ("ONE",),
    "methods.pamkd": ("PAMKD",),
    "methods.sd_darts": ("SDDarts",),
    "methods.sgl": ("SGL",),
    "methods.single": ("Single",),
    "multilevel": ("Level", "hypergradient"),
    "problem": ("Learner", "Net", "Problem"),
    "run.networks.files": ("load",),
    "run.retrain": ("retrain",),
    "run.search": ("search",),
    "run.trained.predict": ("Predictor",),
    "searches.darts": ("Darts",),
    "searches.darts_minus": ("DartsMinus",),
    "searches.diverse_paths": ("DiversePaths",),
    "searches.drnas": ("DrNas",),
    "searches.evolution": ("Evolution",),
    "searches.gdas": ("Gdas",),
    "searches.pcdarts": ("PcDarts",),
    "searches.pdarts": ("PDarts",),
    "searches.prdarts": ("PrDarts",),
    "searches.random": ("Random",),
    "searches.single_path": ("SinglePath",),
    "spaces.base": ("Size",),
    "spaces.cells": ("DARTS", "S1", "S2", "S3", "S4"),
    "spaces.chain": (
        "CREAM",
        "ENNAS_S1",
        "ENNAS_S2",
        "ENNAS_S3",
        "NASBENCH_MACRO",
        "SHUFFLE",
        "Chain",
    ),
    "spaces.genotype": ("Genotype",),
    "spaces.nb201": ("NASBENCH201",),
    "trusted": ("trust",),
    "virtual": ("Exact", "FiniteDifference", "FirstOrder", "virtual_step"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line starts quickly."""
    if name not in _MODULES:
        raise AttributeError(f"module 'tutelage' has no attribute {name!r}")
    return getattr(import_module(f"tutelage.{_MODULES[name]}"), name)
