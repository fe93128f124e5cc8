"""X.509: signing requests, certificates, the authority that signs them, ownership tokens.

Nothing here reads a clock, a file or a random source: `now`, serial numbers, nonces and keys
are arguments, so that every certificate and token is a function of its inputs.
"""
