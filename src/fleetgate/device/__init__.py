"""The device's side: connect with a certificate, and get one through fleet provisioning.

:func:`fleetgate.device.provision.provision` does all of it. It uses nothing of the server and
works with every service that offers AWS IoT's device provisioning MQTT API.
"""

import logging

# A library is silent unless its program wants to hear it; what it would say is in the errors, too.
logging.getLogger("fleetgate").addHandler(logging.NullHandler())
