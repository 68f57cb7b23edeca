"""Search for settings: ``python -m src.search predictions=STORE annotations=train.csv``."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from omegaconf import DictConfig
from rich.console import Console

from src.annotations.categories import stratified_folds
from src.cli.entry_point import CONFIG_DIRECTORY, entry_point, overridden_keys, to_plain
from src.cli.locks import working_in
from src.cli.scores import check_metric, identity_of, inputs_of
from src.console import PlainConsole, progress_bar
from src.errors import InputError
from src.io import check_writable, read_json_object, write_json
from src.postprocess.mask_source import MASK_KEYS, check_fixed_masks, settings_for
from src.postprocess.settings import PostprocessSettings, named_settings, plain_settings
from src.quoting import quote
from src.tuning.cross_validation import cross_validate
from src.tuning.dashboard import Dashboard, TableRun, open_dashboard
from src.tuning.search_results import (
    HELD_OUT,
    Searched,
    SearchResult,
    compare_results,
    option_path,
    searched_images,
    write_option,
)
from src.tuning.search_space import SearchSpace
from src.tuning.session import Session, open_session
from src.tuning.settings_evaluator import Scores
from src.validation import Count, Flag, check_values, shown, whole

if TYPE_CHECKING:
    from src.tuning.settings_search import SettingsSearch, Trial

log = logging.getLogger(__name__)

STORAGE_NAME = "search.db"
RESULT_NAME = "result.json"
ROWS_NAME = "rows_shown.json"
HELD_OUT_NAME = "cross_validated.json"  # a score file, for src.compare
GROUPS = ("postprocess", "default", "winner")  # where the search starts, and its baselines


def run(
    config: DictConfig, console: Console, opened: contextlib.ExitStack
) -> tuple[SearchResult, PostprocessSettings, frozenset[bytes]] | None:
    """Search, choose, and score on held-out images.

    Args:
        config: The composed configuration.
        console: For lines to people.
        opened: Holds what the caller has to close, such as the lock of the results.

    Returns:
        The scores, the settings found, and the digests of the images that chose them; None where
        another process that shares the search is at work on that.

    Raises:
        InputError: A file is missing or wrong, or there are too few images.
    """
    values = {key: plain_settings(to_plain(config[key])) for key in GROUPS}
    inputs = inputs_of(config)
    keys = ("averaging", "num_folds", "seed", "num_random_trials")
    space_values = to_plain(config.space)
    identity = identity_of(
        inputs, config, keys, postprocess=values["postprocess"], space=space_values
    )
    is_shared = config.storage is not None
    if is_shared:
        identity |= inputs.digests()
    directory = Path(config.output_dir)
    dashboard = open_dashboard(
        config.get("logger"), group=f"search {config.name}", directory=directory
    )
    with (
        progress_bar() as progress,
        open_session(inputs, remember=True, progress=progress) as session,
        contextlib.ExitStack() as shown,
    ):
        comparison = session.comparison
        assert comparison is not None  # annotations are mandatory
        for note in (*session.notes, *comparison.ground_truth.store.notes):
            console.print(f"note: {note}")
        base, *baselines = (named_settings(values[key], session.categories) for key in GROUPS)
        if session.store.fixed_masks is not None:
            space_values = without_mask_keys(space_values, session.store.fixed_masks)
            if {f"postprocess.{key}" for key in MASK_KEYS} & overridden_keys():
                check_fixed_masks(base, session.store)
            base, *baselines = (settings_for(one, session.store) for one in (base, *baselines))
            console.print(
                f"note: {' and '.join(MASK_KEYS)} are not searched, and have their default in the "
                f"baselines, too: of {config.predictions}, {session.store.fixed_masks}"
            )
        space = SearchSpace(space_values, base)
        score = _scorer(session, config.averaging)
        folds = _folds(session, comparison.image_ids, config)
        # Imported where it is needed: Optuna and SQLAlchemy take a second, which --help and
        # mistakes do without.
        from src.tuning.settings_search import SettingsSearch

        search = SettingsSearch(
            config.storage if is_shared else directory / STORAGE_NAME,
            name=config.name,
            identity=identity,
            space=space,
            folds=folds,
            seed=config.seed,
            num_random_trials=config.num_random_trials,
        )
        if search.trials:
            console.print(f"{search.place}: resumes after {len(search.trials)} trials")
        rows: _Rows | None = None
        row_kind = _Rows if config.trial_runs else _Table
        if dashboard is not None and not is_shared:
            rows = shown.enter_context(row_kind(dashboard, directory, search, console))
        task = progress.add_task("trials", total=config.num_trials, completed=len(search.trials))

        def show(trial: Trial) -> None:
            progress.advance(task)
            if rows is not None:
                rows.show(trial)

        search.run(config.num_trials, score, show)
        if is_shared:
            try:
                opened.enter_context(working_in(directory, key="output_dir"))
            except InputError:  # held by another
                console.print(
                    f"all {len(search.trials)} trials are done; another process chooses among them "
                    f"and writes {directory / RESULT_NAME}"
                )
                return None
            if dashboard is not None:  # one process shows the trials of all
                shown.enter_context(row_kind(dashboard, directory, search, console))
        choices = progress.add_task(
            "choosing, held-out images", total=(config.num_folds + 1) * len(space.per_class)
        )
        found = cross_validate(
            search,
            session.evaluator,
            score=score,
            baselines=baselines,
            per_class=space.per_class,
            averaging=config.averaging,
            folds=folds,
            on_step=lambda: progress.advance(choices),
        )
        rules = session.evaluator.competition
        image_ids = session.evaluator.scored_image_ids
        write_json(
            directory / HELD_OUT_NAME,
            {
                "competition_map": float(found.held_out.mean()),
                "averaging": config.averaging,
                "use_attributes": False,
                "raster": rules.scored_on,
                "strict": rules.strict,
                "thresholds": list(rules.thresholds),
                "per_image": dict(zip(image_ids, found.held_out.tolist(), strict=True)),
            },
            sort_keys=False,
        )
        images = searched_images(session.ground_truth, session.evaluator.scored_image_ids)
        for note in comparison.notes:
            console.print(f"note: {note}")
    result = compare_results(
        default=score(baselines[0]),
        winner=score(baselines[1]),
        found=found,
        folds=config.num_folds,
        trials=len(search.trials),
        averaging=config.averaging,
        num_resamples=config.num_resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    return result, found.settings, images


def without_mask_keys(space: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Return the space without the keys that need mask probabilities.

    Raises:
        InputError: The command line asks for one of them; the message ends with ``reason``.
    """
    for key in MASK_KEYS:
        if space.get(key) is not None and f"space.{key}" in overridden_keys():
            raise InputError(f"space.{key} must be null here, got {shown(space[key])}: {reason}")
    return {key: value for key, value in space.items() if key not in MASK_KEYS}


class _Rows(contextlib.AbstractContextManager["_Rows"]):
    """Trials on a dashboard, each a run, those of earlier starts too; a file counts them.

    Args:
        dashboard: The dashboard.
        directory: Folder of the file.
        search: The search, with the trials that finished before.
        console: Prints the dashboard's location.
    """

    def __init__(
        self, dashboard: Dashboard, directory: Path, search: SettingsSearch, console: Console
    ) -> None:
        self._dashboard, self._search = dashboard, search
        self._path = directory / ROWS_NAME
        console.print(dashboard.location)

    def __enter__(self) -> Self:
        for trial in self._search.trials[_shown(self._path) :]:
            self.show(trial)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Nothing is open."""

    def show(self, trial: Trial) -> None:
        """Add the next trial."""
        self._add(trial)
        write_json(self._path, {"shown": trial.number + 1})

    def _add(self, trial: Trial) -> None:
        self._dashboard.add(
            f"trial {trial.number:04d}",
            config={"postprocess": trial.settings.to_dict(), "proposed_by": trial.proposed_by},
            summary={"competition_map": float(trial.per_image.mean()), "trial": trial.number},
        )


class _Table(_Rows):
    """Trials on a dashboard as one run: curves while they run, and in the end a table of all."""

    _run: TableRun | None = None  # opened with the first trial that it does not have yet
    _best: float  # score of the trials so far

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the table, unless the search was interrupted: it resumes in the same run."""
        if self._run is None:
            return
        if kind is not None:
            self._run.abandon()
            return
        rows = [
            {"trial": one.number, "competition_map": float(one.per_image.mean())}
            | {"proposed_by": one.proposed_by, **one.settings.to_dict()}
            for one in self._search.trials
        ]
        self._run.close("trials", rows, {"trials": len(rows), "best": self._best})

    def _add(self, trial: Trial) -> None:
        score = float(trial.per_image.mean())
        if self._run is None:
            self._run = self._dashboard.open_table(self._dashboard.group, config={})
            earlier = self._search.trials[: trial.number]
            self._best = max((float(one.per_image.mean()) for one in earlier), default=score)
        self._best = max(self._best, score)
        self._run.show({"competition_map": score, "best": self._best}, step=trial.number)


def _shown(path: Path) -> int:
    """Return the number of trials on the dashboard, from the file; 0 if it is damaged."""
    if not path.exists():
        return 0
    try:
        shown = read_json_object(path).get("shown")
        if isinstance(shown, bool) or not isinstance(shown, int) or shown < 0:
            raise InputError(f"shown must be a whole number, got {shown!r:.80} ({path})")
    except InputError as error:
        log.warning("%s; all trials are shown again", error)
        return 0
    return shown


def _scorer(session: Session, averaging: Any) -> Any:
    """Return a cached function from settings to the images' scores, shape (M,)."""
    known: dict[str, Scores] = {}

    def score(settings: PostprocessSettings) -> Scores:
        name = repr(settings)
        if name not in known:
            known[name] = session.evaluator.score(settings, averaging).per_image
        return known[name]

    return score


def _folds(session: Session, image_ids: Sequence[str], config: DictConfig) -> Any:
    if len(image_ids) < config.num_folds:
        raise InputError(
            f"num_folds must be at most {len(image_ids)}, the images with predictions and ground "
            f"truth, got {config.num_folds}"
        )
    sets = [set(session.ground_truth[image_id].class_keys) for image_id in image_ids]
    return stratified_folds(sets, folds=config.num_folds, seed=config.seed)  # type: ignore[arg-type]


def _lock(config: DictConfig) -> contextlib.AbstractContextManager[None]:
    """Hold the folder; processes that share a search hold it only to write the results."""
    if config.storage is not None:
        return contextlib.nullcontext()
    return working_in(config.output_dir, key="output_dir")


@entry_point("search", lock=_lock)
def main(config: DictConfig) -> None:
    """Search, show the result beside the baselines, and write it as an option of the group."""
    check_metric(config)
    kinds = {
        "trial_runs": Flag,
        "num_trials": whole(1),
        "num_random_trials": Count,
        "num_folds": whole(2),
    }
    check_values(kinds | {"seed": Count}, config)
    directory = CONFIG_DIRECTORY if config.config_dir is None else Path(config.config_dir)
    path = option_path(directory, config.name)
    for output in (path, Path(config.output_dir) / STORAGE_NAME):
        check_writable(output)
    console = PlainConsole(file=sys.stdout, soft_wrap=True)
    if config.storage is not None:
        from src.tuning.shared_trials import check_database  # as SettingsSearch above

        check_database(config.storage)
    with contextlib.ExitStack() as opened:
        if (found := run(config, console, opened)) is not None:
            _write(config, console, path, *found)


def _write(
    config: DictConfig,
    console: Console,
    path: Path,
    result: SearchResult,
    settings: PostprocessSettings,
    images: frozenset[bytes],
) -> None:
    """Print the result, and write it and the option of the group."""
    origin = [
        f"predictions {config.predictions}, ground truth {config.annotations}, {config.averaging}",
        *result.sentences,
    ]
    searched = Searched(
        name=config.name,
        trials=result.trials,
        averaging=result.averaging,
        gain=result.over_winner[HELD_OUT].difference,
        verdict=result.verdict,
        images=images,
        cross_validated=result.scores[HELD_OUT].estimate,
    )
    write_option(path, settings, origin, searched)
    console.print(result.table())
    for sentence in result.sentences:
        console.print(sentence)
    use = f"postprocess={config.name}"
    if config.config_dir is not None:
        place = f"file://{Path(config.config_dir).resolve()}"
        use += f" {quote('hydra.searchpath', [place])}"
    console.print(f"wrote {path}: {use}")
    summary = result.summary() | {"settings": settings.to_dict(), "written": str(path)}
    write_json(Path(config.output_dir) / RESULT_NAME, json.loads(json.dumps(summary)))
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
