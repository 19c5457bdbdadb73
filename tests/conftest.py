"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# How long an example takes, or the making of one, says more of the machine than of what is tested.
settings.register_profile(
    "tidings", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tidings")
