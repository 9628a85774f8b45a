"""The command line. It defines, runs and reads by public names, and shares only how things are said."""
