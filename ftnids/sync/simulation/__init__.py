"""The protocol under simulated weather."""

from ftnids.sync.simulation.promises import BrokenPromiseError
from ftnids.sync.simulation.weather import Fault, Weather, draw
from ftnids.sync.simulation.world import Result, Simulation, simulate

__all__ = ["BrokenPromiseError", "Fault", "Result", "Simulation", "Weather", "draw", "simulate"]
