"""What an experiment is: a declaration in configs/experiments, and the runs that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from aa_plugins.config import AAConfig
from experiments.tasks import TASKS, is_analysis

CLAIM_DIRECTIONS = ("higher", "lower", "zero")


# What a variant may say beside the fields of AAConfig.
BESIDE_FILTERS = ("network", "randaugment", "options", "phases", "stabilize")

# What makes runs the same, beside the fields of their variant.
SHARED_FIELDS = (
    *("config", "data", "task", "options", "seed_options", "protocol", "start", "stabilize"),
    "folds",
)


def run_name(variant: str, seed: int) -> str:
    """What the folders of a variant's run with one seed are called."""
    return f"{variant}_seed{seed}"


@dataclass(frozen=True)
class Run:
    """One training with one seed, and its evaluation."""

    experiment: Experiment
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folders: no spaces, as "bank_seed0"."""
        return run_name(self.variant, self.seed)

    @property
    def home(self) -> str:
        """The experiment in whose folders it lies."""
        return self.experiment.shared.get(self.variant, self.experiment.name)

    @property
    def aa(self) -> dict[str, Any]:
        """The fields of AAConfig that make the variant."""
        fields = self.experiment.variants[self.variant]
        return {name: value for name, value in fields.items() if name not in BESIDE_FILTERS}

    @property
    def phases(self) -> int:
        """Sampling phases that the network is averaged over at test time."""
        return self.experiment.variants[self.variant].get("phases", 1)

    @property
    def stabilize(self) -> dict[str, Any]:
        """Fields of the Settings of its stabilization, with the variant's own."""
        own = self.experiment.variants[self.variant].get("stabilize") or {}
        return {**self.experiment.stabilize, **own, "seed": self.seed}

    @property
    def is_stabilized(self) -> bool:
        """Whether it is stabilized at all, if only its norms' statistics are."""
        return self.experiment.variants[self.variant].get("stabilize", {}) is not None

    @property
    def source(self) -> Run:
        """Of an analysis: the run that trains what it measures."""
        return Run(self.experiment.trained, self.variant, self.seed)

    @property
    def options(self) -> tuple[str, ...]:
        """KEY=VALUE of the host: the experiment's, the seed's, then the variant's own."""
        own = self.experiment.variants[self.variant].get("options", ())
        of_seed = self.experiment.seed_options.get(self.seed, ())
        return (*self.experiment.options, *of_seed, *own)


@dataclass(frozen=True)
class Claim:
    """A sentence that records bear out or don't.

    Args:
        text: the sentence.
        metric: which number decides, as "mASSC" or "mask/mAISC".
        of: the variant it is about.
        against: the variant it is compared with; none for a claim about the number itself.
        direction: "higher" or "lower" than `against`, or "zero": not told apart from it; without
            `against`, from the number 0.
    """

    text: str
    metric: str
    of: str
    against: str | None = None
    direction: str = "higher"


@dataclass(frozen=True)
class Start:
    """A variant of another experiment, whose trained weights of the same seed are the start."""

    experiment: str
    variant: str

    def folder(self, seed: int) -> Path:
        """Of its work, below the root of all work."""
        return Path(self.experiment) / run_name(self.variant, seed)


@dataclass(frozen=True)
class Experiment:
    """Variants × seeds of one network on one data set.

    Args:
        name: of its file, and of its folder of records.
        title: for tables.
        config: config file of the host, trained with each variant's filter in place of its own.
        data: folder of the data set below the root of all data.
        task: a name in `aa_plugins.evaluation.tasks.TASKS`.
        seeds: of the trainings.
        variants: name to fields of AAConfig, and `options` of the host that are the variant's own.
        columns: metrics of the tables.
        options: KEY=VALUE of the host that all of its trainings share, on top of the config.
        seed_options: seed to KEY=VALUE that its trainings share, such as the sequence held out.
        protocol: what of the evaluation's protocol differs from the host's default.
        start: what its trainings go on from; by default they start as the config says.
        claims: what the records are asked.
        sequences: by which rule of `aa_plugins.evaluation.sequences` images belong to videos.
        stabilize: fields of `aa_plugins.training.Settings`, where networks are stabilized without
            labels; a variant's own change them, and `steps: 0` trains nothing.
        photos: folder, below the data set's, of the images that networks are stabilized on; with
            folds, "photos".
        block: frames of a video that are resampled together, at least.
        folds: of a cross-validation, how many; a seed is then the fold that is tested on.
        of: of an analysis of robustness, the experiment whose networks it measures; what it doesn't
            say itself is as there, and its `variants` are names of variants there.
        analysis: options of the analysis, such as `images`.
        train: settings of trainings in this folder: of oscillations, or of a classifier from
            scratch.
        trained: the experiment `of`, once it is read.
        shared: variants that another experiment declares just so, by its name: its runs are theirs.
    """

    name: str
    title: str
    config: str
    data: str
    task: str
    seeds: tuple[int, ...]
    variants: Mapping[str, Mapping[str, Any]]
    columns: tuple[str, ...]
    options: tuple[str, ...] = ()
    seed_options: Mapping[int, Sequence[str]] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    start: Start | None = None
    sequences: str | None = None
    block: int | None = None
    stabilize: Mapping[str, Any] = field(default_factory=dict)
    photos: str | None = None
    folds: int | None = None
    of: str | None = None
    analysis: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    trained: Experiment | None = None
    shared: Mapping[str, str] = field(default_factory=dict)

    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that every variant has one before any has two."""
        return [Run(self, variant, seed) for seed in self.seeds for variant in self.variants]


def load(path: str | Path) -> Experiment:
    """Read a declaration.

    Raises:
        FileNotFoundError: where there is none, or none of the name that it starts from.
        ValueError: for an unknown field, variant, task or direction.
    """
    path = Path(path)
    values = _read(path)
    if is_analysis(values.get("task", "")):
        other = path.with_stem(str(values.get("of")))
        values = {**inherited(values, _read(other), path), "trained": load(other)}
    unknown = sorted(set(values) - set(Experiment.__dataclass_fields__))
    if unknown:
        raise ValueError(f"{path}: unknown field {unknown[0]!r}")
    for name in ("seeds", "columns", "options"):
        values[name] = tuple(values.get(name, ()))
    for claim in values.get("claims", ()):
        if unknown := sorted(set(claim) - set(Claim.__dataclass_fields__)):
            raise ValueError(
                f"{path}: unknown field {unknown[0]!r} of a claim: quote texts with commas"
            )
    values["claims"] = tuple(Claim(**claim) for claim in values.get("claims", ()))
    if "start" in values:
        values["start"] = Start(**values["start"])
    experiment = Experiment(name=path.stem, **values)
    _check(experiment, path)
    return experiment


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"no experiment {path}: there are {known}")
    return yaml.safe_load(path.read_text())


def inherited(own: dict[str, Any], other: dict[str, Any], path: Path) -> dict[str, Any]:
    """The declaration of an analysis, with what it leaves to the experiment that it is `of`."""
    shared = ("config", "data", "seeds", "folds", "stabilize", "photos", "sequences", "block")
    kept = (*shared, "options", "seed_options")
    names = own.get("variants") or list(other["variants"])
    if unknown := sorted(set(names) - set(other["variants"])):
        raise ValueError(f"{path}: {own['of']} has no variant {unknown[0]!r}")
    variants = {name: other["variants"][name] for name in names}
    return {**{n: other[n] for n in kept if n in other}, **own, "variants": variants}


def _check(experiment: Experiment, path: Path) -> None:
    if experiment.task not in TASKS:
        raise ValueError(f"{path}: task={experiment.task!r}; choose one of {', '.join(TASKS)}")
    for name in experiment.variants:
        if not name.replace("-", "").isalnum():
            raise ValueError(f"{path}: variant {name!r} names a folder: letters, digits, hyphens")
        AAConfig.from_dict(Run(experiment, name, seed=0).aa)
    if unknown := sorted(set(experiment.seed_options) - set(experiment.seeds)):
        raise ValueError(f"{path}: seed_options are of seed {unknown[0]!r}, which isn't in seeds")
    if start := experiment.start:
        other = _read(path.with_stem(start.experiment))
        if start.variant not in other["variants"] or set(experiment.seeds) - set(other["seeds"]):
            raise ValueError(
                f"{path}: starts from variant {start.variant!r}, seeds {experiment.seeds}, which "
                f"{start.experiment} doesn't declare"
            )
    for variant, other in experiment.shared.items():
        theirs = load(path.with_stem(other))
        same = all(getattr(theirs, n) == getattr(experiment, n) for n in SHARED_FIELDS)
        if not same or theirs.variants.get(variant) != experiment.variants.get(variant):
            raise ValueError(f"{path}: {other} declares variant {variant!r} otherwise, or not")
    for claim in experiment.claims:
        for variant in (claim.of, claim.against):
            if variant is not None and variant not in experiment.variants:
                raise ValueError(f"{path}: claim {claim.text!r} is about unknown {variant!r}")
        if claim.direction not in CLAIM_DIRECTIONS:
            raise ValueError(
                f"{path}: direction={claim.direction!r}: choose one of "
                f"{', '.join(CLAIM_DIRECTIONS)}"
            )
