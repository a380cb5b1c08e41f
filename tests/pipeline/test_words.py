"""A service that quotes records in everything it says: none of it is kept."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from ctbatch.pipeline.report import RunState
from tests.pipeline.scripted import Line, ScriptedService, Weather, go_on, mortal, settings_for
