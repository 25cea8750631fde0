"""The golden cases: every module here but `common` is a family with `CASES = {name: case}`."""

import importlib
import pkgutil


def load():
    """{name: case} of all families, each case with its `family`."""
    cases = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        if module.name == "common":
            continue
        for name, case in importlib.import_module(f"{__name__}.{module.name}").CASES.items():
            if name in cases:
                raise SystemExit(f"{name} is a case of both {cases[name]['family']} and {module.name}")
            cases[name] = {**case, "family": module.name}
    return cases
