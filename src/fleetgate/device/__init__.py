"""The device's side: connect with a certificate, and get one through fleet provisioning.

:func:`fleetgate.device.provision.provision` does all of it. It uses nothing of the server and
works with every service that offers AWS IoT's device provisioning MQTT API.
"""
