"""What ensembles and packs share: names whose versions list versions of tasks."""
