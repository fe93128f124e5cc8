"""Fleetgate: AWS IoT device provisioning that you can run yourself."""

__version__ = "0.1.0"
