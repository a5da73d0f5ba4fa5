"""Build a page from measurements."""

from __future__ import annotations

from collections.abc import Sequence

from sparsekit.report.environment import commands_section, environment_section
from sparsekit.report.facts import Facts
from sparsekit.report.headline import headline
from sparsekit.report.layers import layers_section
from sparsekit.report.operators import operators_section
from sparsekit.report.page import Page, Section
from sparsekit.report.quality import quality_section
from sparsekit.report.sizes import sizes_section
from sparsekit.report.times import times_section


def page_of(facts: Facts, more: Sequence[Section] = ()) -> Page:
    """Build the page of a model.

    Args:
        facts: measurements; sections without data are left out.
        more: further sections, placed before environment and commands.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    sections = [
        None if facts.quality is None else quality_section(facts.quality),
        times_section(facts.times, facts.time_remarks) if facts.times or facts.time_remarks else None,
        layers_section(facts.layers, facts.layer_remarks) if facts.layers else None,
        operators_section(facts.times),
        sizes_section(facts.sizes, facts.size_remarks) if facts.sizes else None,
        Section("Not on this page", facts.unknown) if facts.unknown else None,
        *more,
        environment_section(facts.environment),
        commands_section(facts.commands),
    ]
    return Page(facts.model, headline(facts), [section for section in sections if section is not None])
