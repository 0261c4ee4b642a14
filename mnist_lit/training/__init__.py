"""Training: LightningModules, callbacks, run folders, several processes."""
