"""Parts of the documentation that are written from the code whenever it is built: `<!-- generate: NAME -->` in a page
stands for what the function of that name in PARTS gives, as Markdown."""

from collections.abc import Callable

from docs.generate.api import functions, results
from docs.generate.boards import boards, exporters, float_operators, operators
from docs.generate.keys import board_keys, search_keys
from docs.generate.modules import modules
from docs.generate.verbs import exit_codes, verb_list, verbs

PARTS: dict[str, Callable[[], str]] = {
    "verbs": verbs,
    "verb-list": verb_list,
    "exit-codes": exit_codes,
    "search-keys": search_keys,
    "board-keys": board_keys,
    "boards": boards,
    "exporters": exporters,
    "operators": operators,
    "float-operators": float_operators,
    "modules": modules,
    "api-functions": functions,
    "api-results": results,
}

__all__ = ["PARTS"]
