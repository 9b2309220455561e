"""`python -m chorus_server.pretraining pretrain|adapt ...`: the two commands for a machine on which only the
model's packages are installed, such as a borrowed GPU machine."""

from __future__ import annotations

import click

from chorus_server.pretraining.cli import adapt, pretrain

if __name__ == "__main__":
    click.Group(commands={"pretrain": pretrain, "adapt": adapt})()
