"""Functions that decide for the server, and what runs them.

A function is known by the name in its Lambda ARN. It is code that was uploaded through the Lambda
API, or what the operator's configuration says: Python code of theirs, a webhook, another Lambda
endpoint, one of ours. An operator's code never runs in the server's own process. Nothing here
knows registry or operations: bytes in, bytes out, bounded in time, size and number.
"""
