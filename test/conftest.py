"""Hypothesis without limits of time: a machine may be busy."""

from hypothesis import HealthCheck, settings

settings.register_profile("opennpu", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("opennpu")
