"""What is asked of the device about finished points: whether they are exact, what they answer, how fast they all are,
and what ONNX Runtime's int8 form of the float network reaches. Each is asked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpcompile.ir.bits import BitPair
from mpcompile.latency.progress import PhaseProgress
from mpcompile.search.clock import Clock
from mpcompile.search.config import Config
from mpcompile.search.device import SearchDevice
from mpcompile.search.folder import Folder, key_of
from mpcompile.search.front import Point
from mpcompile.search.layers import Network
from mpcompile.search.objective import bitops, normalised_bits
from mpcompile.search.sizes import searched_macs, weight_bytes
from mpcompile.search.stamp import sha256_of
from mpcompile.search.task import Task

POINTS, MODEL, BUNDLE, RACE = "points", "model.onnx", "model.mpc", "race.json"
CALIBRATION_IMAGES = 128
"""Training images that the int8 baseline's ranges are taken from."""
VERIFIED_IMAGES = 1
"""Test images on which every buffer of a bundle is compared with the reference, which is slow."""


@dataclass(frozen=True)
class PointChecks:
    """Of one run; results are kept in its folder."""

    config: Config
    folder: Folder
    task: Task
    device: SearchDevice
    clock: Clock
    show: PhaseProgress

    def point(self, name: str, folder: Folder, bundle: Path | None) -> dict:
        """ "deployed": the accuracy of the point's file on the device; of a bundle also "verify" and "profile", see
        SearchDevice."""
        model = folder.path / MODEL
        file = bundle or model

        def check() -> dict:
            self.show(f"check {name}", 0, 1, {})
            with self.clock.phase(f"check {name}"):
                found: dict[str, Any] = {"deployed": self._right(file)}
                if bundle:
                    found["verify"] = self.device.verify(model, bundle, self.task.inputs(VERIFIED_IMAGES, "test"))
                    found["profile"] = self.device.profile(model, bundle)
            self.folder.log("checked", point=name, deployed=found["deployed"], **found.get("verify", {}))
            self.show(f"check {name}", 1, 1, {"accuracy": found["deployed"]})
            return found

        return folder.once("checked.json", self._key({name: file}), check)

    def int8(self, network: Network) -> Point:
        """The float point's file, quantized by ONNX Runtime; nothing is trained. `network`: as it was before training,
        for its size."""
        folder, source = self.folder.inner(POINTS, "int8"), self.folder.path / POINTS / "float" / MODEL
        model = folder.path / MODEL

        def quantize() -> dict:
            self.show("quantize int8", 0, 1, {})
            with self.clock.phase("quantize int8"):
                self.device.quantize(source, model, self.task.inputs(CALIBRATION_IMAGES, "train"))
                found = self._right(model)
            self.folder.log("quantized", point="int8", accuracy=found)
            self.show("quantize int8", 1, 1, {"accuracy": found})
            return {"accuracy": found}

        key = key_of(self._key({"float": source}), CALIBRATION_IMAGES)
        found = folder.once("quantized.json", key, quantize, files=(MODEL,))["accuracy"]
        eight, macs = dict.fromkeys(network.reads(), BitPair(8, 8)), searched_macs(network)
        point = Point(
            "int8",
            "int8",
            found,
            None,
            bitops=bitops(macs, eight),
            normalised_bits=normalised_bits(macs, eight),
            deployed=found,
            weight_bytes=weight_bytes(network, dict.fromkeys(eight, 8)),
        )
        folder.publish("metrics.json", point.to_json())
        return point

    def race(self, points: Sequence[Point]) -> list[Point]:
        """The points with `raced`. Times that were taken at different moments on one machine cannot be compared: here
        all are timed in turn."""
        files = {
            p.name: self.folder.path / POINTS / p.name / (BUNDLE if p.assignment is not None else MODEL) for p in points
        }

        def work() -> dict:
            with self.clock.phase("race"):
                found = self.device.race(files, lambda done, total: self.show("race", done, total, {}))
            self.folder.log("raced", points=list(files), note=found["note"])
            return found

        timings = self.folder.once(RACE, self._key(files), work)["timings"]
        return [replace(p, raced=timings[p.name]["seconds"]) for p in points]

    def _right(self, file: Path) -> float:
        """What a file scores on the device: for images, the share that it answers rightly."""
        return float(self.task.score_file(lambda inputs: self.device.outputs(file, {self.task.input: inputs})))

    def _key(self, files: dict[str, Path]) -> str:
        """Of what the device says of these files."""
        hashes = {name: sha256_of(file) for name, file in files.items()}
        about = {name: dict(part) for name, part in self.device.about().items()}
        identity, measure = dict(self.device.identity), self.config.key("measure")
        return key_of(hashes, identity, about, self.task.fingerprint, measure, VERIFIED_IMAGES)
