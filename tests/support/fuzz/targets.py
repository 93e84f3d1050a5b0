"""The fuzzer of each parser and HTTP service, by the name of its target."""

import random
from collections import Counter
from collections.abc import Callable

from tests.support.fuzz.files import cells
from tests.support.fuzz.hl7 import hl7, mllp
from tests.support.fuzz.model_api import model_api
from tests.support.fuzz.parsers import events, messages, tensors
from tests.support.fuzz.services import dashboard_pages, gateway_messages, login_forms

TARGETS: dict[str, Callable[[random.Random, int], Counter[str]]] = {
    "events": events,
    "messages": messages,
    "tensors": tensors,
    "cells": cells,
    "model-api": model_api,
    "dashboard": dashboard_pages,
    "login": login_forms,
    "gateway": gateway_messages,
    "hl7": hl7,
    "mllp": mllp,
}
