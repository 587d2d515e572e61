"""The sections of an audit's page: NAME.py and NAME.html each, found by themselves."""
