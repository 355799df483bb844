"""The data of a run, before it: bad rows, statistics of the tasks, the first draws, the tokens that are learnt."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mtl_opt.batch import IGNORE_INDEX
from mtl_opt.data import (
    MIXINGS,
    Facts,
    Mixer,
    Sampler,
    Source,
    StreamRows,
    build_mixer,
    encoded,
    iterate,
    split_row_pacing,
)
from mtl_opt.data.statistics import length_statistics, text_statistics
from mtl_opt.errors import InputError, UnknownNameError
from mtl_opt.models import load_tokenizer
from mtl_opt.training.config.run_config import TrainConfig
from mtl_opt.training.preview.pull import MOST_DRAWS, pulls
from mtl_opt.training.setup.data import Prepared, entries_of, opener_of, prepare
from mtl_opt.training.setup.sampler import build_sampler, facts_of, new_sampler


def validate(config: TrainConfig) -> tuple[list[str], list[str]]:
    """Check every configured row, and the data against the mixing; return problems and notes."""
    problems: list[str] = []
    try:
        entries, held_out = entries_of(config)
        tokenizer = load_tokenizer(config.model_name_or_path, trust_remote_code=config.trust_remote_code)
    except InputError as error:
        return [str(error)], []
    opener = opener_of(config, tokenizer)
    for source in [s for entry in entries for s in (entry.train, entry.eval) if s is not None] + held_out:
        problems += bad_rows(replace(source, streaming=config.streaming), opener)
    if problems:
        return problems, []
    try:
        prepared = prepare(config).only(config.only_tasks)
        build_sampler(config, prepared)
    except InputError as error:
        return [str(error)], []
    notes = []
    for task, tokens in prepared.train.items():
        if not isinstance(tokens, StreamRows) and tokens.num_shortened:
            cut = f", {tokens.num_answers_cut} of them in an answer" if tokens.num_answers_cut else ""
            notes.append(f"Task {task}: {tokens.num_shortened} rows shortened to cutoff_len {config.cutoff_len}{cut}.")
    return [], notes


def bad_rows(source: Source, opener: Any) -> Iterator[str]:
    """Read and tokenise a source, and yield an error for each bad row."""
    errors: list[InputError] = []
    encoder = opener.encoder_of(source.settings, source.task)
    try:
        for _ in encoded(iterate(source, errors.append), encoder, errors.append):
            yield from map(str, errors)
            errors.clear()
    except InputError as error:
        errors.append(error)
    yield from map(str, errors)


def stats(config: TrainConfig) -> dict[str, Any]:
    """Compute the statistics of every task: rows, tokens, shares under every mixing, epochs."""
    if config.streaming:
        raise InputError("`mtl-opt data stats` reads all rows; run it with `streaming=false`.")
    prepared = prepare(config).only(config.only_tasks)
    sampler, steps = build_sampler(config, prepared)
    facts, draws = facts_of(config, prepared, steps), steps * config.gradient_accumulation_steps
    expected = {}
    for name in MIXINGS:
        mixer = mixer_for(
            name, facts, split_row_pacing(config.mixing_args)[1] if name == config.mixing else {}, name == config.mixing
        )
        expected[name] = None if mixer is None else pulls(config, prepared, driven_by(mixer, sampler), draws)
    drawn = count_draws(sampler, draws)
    tasks = {}
    for task in prepared.tasks:
        settings, tokens = prepared.settings[task], prepared.train[task]
        tasks[task] = {
            "rows": len(tokens),
            "eval_rows": len(prepared.eval_rows[task]),
            **prepared.columns[task],
            "role": settings.role,
            "group": settings.group,
            "weight": settings.weight,
            "tokens": length_statistics(tokens),
            "shortened": tokens.num_shortened,
            "answers_cut": tokens.num_answers_cut,
            **text_statistics(prepared.train_rows[task], prepared.eval_rows[task]),
            **overlap_counts(prepared, task),
            "shares": {name: None if found is None else round(found[0][task], 4) for name, found in expected.items()},
            "pull": {name: None if found is None else round(found[1][task], 4) for name, found in expected.items()},
            "epochs": round(drawn[task] / len(tokens), 3),
        }
    return {"steps": steps, "mixing": config.mixing, "loss_reduction": config.loss_reduction, "tasks": tasks}


def overlap_counts(prepared: Prepared, task: str) -> dict[str, Any]:
    """Count duplicates among the training rows of a task, and what its held-out rows share with training rows."""
    found = prepared.overlap[task]
    return {
        "exact_duplicates": found.duplicates,
        "deduplicated": found.dropped,
        "held_out_trained": found.shared,
        "held_out_asked": found.asked,
        "held_out_elsewhere": found.elsewhere,
    }


def mixer_for(name: str, facts: Facts, arguments: Mapping[str, Any], configured: bool) -> Mixer | None:
    """Build a mixing, or None for one that needs arguments and is not the configured one."""
    try:
        return build_mixer(name, facts, arguments)
    except InputError:
        if configured:
            raise
        return None


def driven_by(mixer: Mixer, like: Sampler) -> Sampler:
    """Build an otherwise equal sampler that this mixing drives."""
    return Sampler(
        like.sizes, like.rows_per_task, 0, mixer,
        draws_per_step=like.draws_per_step, tasks_per_step=like.tasks_per_step,
    )  # fmt: skip


def count_draws(sampler: Sampler, draws: int) -> dict[str, float]:
    """Count the rows of every task over a number of draws, extrapolating beyond MOST_DRAWS."""
    looked_at = min(draws, MOST_DRAWS)
    for _ in range(looked_at):
        sampler.skip()
    return {task: rows * draws / max(1, looked_at) for task, rows in sampler.drawn.items()}


def plan_draws(config: TrainConfig, steps: int) -> dict[str, Any]:
    """Draw the first steps of a run, and count the rows, tokens and pull of every task."""
    prepared = prepare(config).only(config.only_tasks)
    sampler, total_steps = build_sampler(config, prepared)
    draws = steps * config.gradient_accumulation_steps
    _, pull = pulls(config, prepared, new_sampler(config, prepared, total_steps), draws)
    lengths = {t: None if isinstance(r, StreamRows) else r.lengths for t, r in prepared.train.items()}
    tokens = dict.fromkeys(prepared.tasks, 0)
    for _ in range(draws):
        for task, rows in sampler.draw().items():
            known = lengths[task]
            if known is not None:
                tokens[task] += int(known[rows].sum())
            else:
                tokens[task] += sum(len(prepared.train[task][row].input_ids) for row in rows)
    total = sum(sampler.drawn.values())
    tasks = {
        task: {
            "rows": rows,
            "tokens": tokens[task],
            "share": rows / total if total else 0.0,
            "pull": pull[task],
            "epochs": None if prepared.sizes[task] is None else rows / (prepared.sizes[task] or 1),
        }
        for task, rows in sampler.drawn.items()
    }
    return {"tasks": tasks}


def show(config: TrainConfig, task: str, number: int) -> list[dict[str, Any]]:
    """Decode the first rows of a task with the learnt tokens in brackets."""
    prepared = prepare(config)
    if task not in prepared.train:
        raise UnknownNameError("task", task, prepared.train)
    tokenizer, found = prepared.tokenizer, []
    known = prepared.sizes[task]
    for i in range(number if known is None else min(number, known)):
        row = prepared.train[task][i]
        learnt = [label != IGNORE_INDEX for label in row.labels]
        place = f"row {i + 1} of a stream" if known is None else prepared.train_rows[task][i].place
        text = ""
        for begin, end in stretches(learnt):
            piece = tokenizer.decode(row.input_ids[begin:end], skip_special_tokens=False)
            text += f"⟦{piece}⟧" if learnt[begin] else piece
        found.append(
            {
                "place": place,
                "text": text,
                "tokens": tokenizer.convert_ids_to_tokens(row.input_ids),
                "input_ids": row.input_ids,
                "learnt": learnt,
                "shortened": row.shortened,
            }
        )
    return found


def stretches(values: list[bool]) -> Iterator[tuple[int, int]]:
    """Yield begin and end of every run of equal values."""
    begin = 0
    for i in range(1, len(values) + 1):
        if i == len(values) or values[i] != values[begin]:
            yield begin, i
            begin = i
