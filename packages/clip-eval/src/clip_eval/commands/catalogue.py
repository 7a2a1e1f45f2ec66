"""The subcommands of `clip-eval` that say what there is: list, show."""

from __future__ import annotations

import argparse
import json

__all__ = ["add"]


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the subcommands."""
    listed = commands.add_parser(
        "list",
        help="the data sets that are known by name, and the suites",
        description="Print a table of the data sets that can be evaluated by name, with task, size, metric and chance "
        "level. A folder or an address of your own needs no entry here.",
        epilog="examples:\n  clip-eval list\n  clip-eval list --suite vtab+\n  clip-eval list --filter retrieval\n"
        "  clip-eval list --suites",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed.add_argument(
        "--filter", metavar="TEXT", help="only those with all these words in name, title, task or suite"
    )
    listed.add_argument("--suite", metavar="NAME", help="only those of a suite")
    listed.add_argument("--suites", action="store_true", help="the suites instead of the data sets")
    listed.add_argument("--json", action="store_true", help="everything as JSON")
    listed.set_defaults(action=_list)

    show = commands.add_parser(
        "show",
        help="all that is known of one data set or suite",
        description="Print size, metric, prompts, languages, origin, licence, published scores and notes of one data "
        "set; or what a suite is made of.",
        epilog="examples:\n  clip-eval show CIFAR-10\n  clip-eval show wds/vtab/svhn\n  clip-eval show datacomp",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument("name", metavar="NAME", help="as CLIP_benchmark, DataComp, the Hub or the tables call it")
    show.add_argument("--json", action="store_true", help="as JSON")
    show.set_defaults(action=_show)


def _list(options: argparse.Namespace) -> None:
    from clip_eval.catalogue import entries, find
    from clip_eval.catalogue.listing import LEGEND, as_values, matching, table
    from clip_eval.suites import SUITES, suite

    if options.suites:
        if options.json:
            found = {name: {"title": one.title, "datasets": list(one.datasets)} for name, one in SUITES.items()}
            print(json.dumps(found, indent=1))
            return
        width = max(map(len, SUITES))
        for name, one in SUITES.items():
            print(f"{name:<{width}}  {len(one.datasets):>2}  {one.title}")
        return
    rows = list(entries()) if options.suite is None else [find(name) for name in suite(options.suite).datasets]
    if options.filter is not None:
        rows = matching(options.filter, rows)
    if options.json:
        print(json.dumps([as_values(row) for row in rows], indent=1))
        return
    print("\n".join(table(rows)))
    print(f"\n{len(rows)} data sets. {LEGEND}")


def _show(options: argparse.Namespace) -> None:
    from clip_eval.catalogue import find, lookup
    from clip_eval.catalogue.listing import as_values, card, table
    from clip_eval.suites import SUITES, suite

    if lookup(options.name) is None and options.name.lower() in SUITES:
        one = suite(options.name)
        if options.json:
            averages = {name: list(members) for name, members in one.aggregates.items()}
            print(json.dumps({"title": one.title, "datasets": list(one.datasets), "aggregates": averages}, indent=1))
            return
        print(f"{one.title}\n")
        print("\n".join(table([find(name) for name in one.datasets])))
        for name, members in one.aggregates.items():
            print(f"\n{name}: the plain mean of {len(members)}" if len(members) > 1 else f"\n{name}: {members[0]}")
        return
    entry = find(options.name)
    print(json.dumps(as_values(entry), indent=1) if options.json else card(entry))
