"""Fixtures of the client's tests: a server in memory, and the same one on a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from api_harness import ApiServer, train_vocabulary
from fake_chorus import FakeChorus, on_loopback

from chorus import Client
from server.model.vocabulary import Vocabulary
