"""Settings: one dataclass of dataclasses for a search, one for a retraining.

Nothing here imports torch, so that help, listings and checks are fast. A setting's docstring is its
help on the command line. Every class refuses a bad value when it is constructed.
"""

from tutelage.config.data import Data as Data
from tutelage.config.data import once_balanced as once_balanced
from tutelage.config.machine import MOST_THREADS as MOST_THREADS
from tutelage.config.machine import Device as Device
from tutelage.config.machine import Divide as Divide
from tutelage.config.machine import Graph as Graph
from tutelage.config.machine import Kernels as Kernels
from tutelage.config.machine import Log as Log
from tutelage.config.machine import Machine as Machine
from tutelage.config.machine import Precision as Precision
from tutelage.config.machine import Statistics as Statistics
from tutelage.config.machine import Stem as Stem
from tutelage.config.optimisers import Alphas as Alphas
from tutelage.config.optimisers import Weights as Weights
from tutelage.config.retrain import Retrain as Retrain
from tutelage.config.search import Run as Run
from tutelage.searches.evolution import Evolution as Evolution
