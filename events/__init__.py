"""Events about models, the lifecycle that they drive, and the stores of the log."""
