"""What a run does with the features of the frozen network before its first step: it solves the head, judges labels."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from ftexp.config import Config
from ftexp.data.splitting.splits import Splits
from ftexp.finetune.phases import Phase
from ftexp.machine.runtime import Runtime
from ftexp.models.blocks import HEAD, Network
from ftexp.training.inputs.features import FeatureInputs, KnownFeatures, feature_inputs, why_unsolvable
from ftexp.training.inputs.input_source import InputSource
from ftexp.training.judging import JudgedLabels, judge_labels
from ftexp.training.run_time import RunTime
from ftexp.training.solve import SolvedHead, solve_head

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FrozenHead:
    """The head on the features of a frozen network.

    Attributes:
        network: the network on its device.
        config: the configuration of the run.
        runtime: the device and the ranks.
        splits: the samples.
        known: what enters the last layer of the pretrained network, if it is known.
    """

    network: Network
    config: Config
    runtime: Runtime
    splits: Splits
    known: KnownFeatures | None = None

    def features(self, phase: Phase, source: InputSource, *, pretrained: bool) -> FeatureInputs:
        """Open the features.

        Args:
            phase: whose frozen blocks' activations they are computed from.
            source: opens the batches, and closes them.
            pretrained: whether the network still has its pretrained weights.
        """
        self.network.module.eval()
        if pretrained and self.known is not None:
            return self.known.inputs(self.network, self.runtime)
        return feature_inputs(source, self.network, phase, self.runtime)

    def solve(self, features: FeatureInputs) -> SolvedHead:
        """Put the head that is best on the features into the network."""
        self.network.module.eval()
        return solve_head(self.network, features, self.config, self.runtime, self.splits)

    def solve_start(self, first: Phase, run_time: RunTime | None = None) -> SolvedHead | None:
        """``head.init=solved``: put the head that is best on the pretrained features into the network.

        Args:
            first: the first phase of the run.
            run_time: the time of the run; None: there is no limit.

        Returns:
            None if the head stays as it is: it is not asked for, or the phase solves it anyway; or, as a log line says,
            it keeps rows of a file of weights, or there is no time for a pass over all images.
        """
        if self.config.head.init != "solved" or first.solved:
            return None
        if self.network.keeps_rows:
            log.info("head    not solved at the start: it keeps rows of the file of weights (head.init=solved)")
            return None
        if self.known is None and run_time is not None and not run_time.allows_pass:
            log.info("head    not solved at the start: no time for a pass over all images (train.max_minutes)")
            return None
        return self.solve_pretrained(replace(first, learning=(HEAD,), part=None, change=None, solved=True))

    def solve_pretrained(self, phase: Phase) -> SolvedHead:
        """Put the head that is best on the pretrained features into the network, for a phase that is solved."""
        with self._source() as source:
            return self.solve(self.features(phase, source, pretrained=True))

    def judge_labels(self, first: Phase) -> JudgedLabels | None:
        """Tell how many labels look wrong. The activations of the blocks that are frozen in the first phase are cached,
        and the phase trains on them: they are not computed twice.

        Args:
            first: the first phase of the run.

        Returns:
            None if nothing enters a linear last layer, which a log line says.
        """
        if (reason := why_unsolvable(self.network)) is not None:
            log.info("labels  not judged: %s", reason)
            return None
        phase = replace(
            first, part=None
        )  # if only a part of a block learns, nothing is cached, and a line of the log says so: once is enough
        with self._source() as source:
            features = self.features(phase, source, pretrained=True)
            return judge_labels(self.network, features, self.splits, self.runtime, self.config.probe.odds)

    def _source(self) -> InputSource:
        return InputSource(self.config, self.network, self.splits, self.runtime)
