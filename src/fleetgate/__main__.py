"""``python -m fleetgate``: the same as the ``fleetgate`` command."""

from fleetgate.main import main

if __name__ == "__main__":
    main()
