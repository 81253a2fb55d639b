"""The demo: train a network with mixed bitwidths, compile it for this CPU, verify it, time it against ONNX Runtime.

    python examples/demo/run.py [--data PATH] [--images N] [--out runs/demo] [--threads N] [--again]

It leaves in --out: report.json, model.mpc (the bundle), model.onnx (what Brevitas exported), float.onnx and int8.onnx
(what it is compared with). Interrupt it at any time: the next run goes on from the last finished epoch or step.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import data as datasets  # noqa: E402
from steps import Steps, file_hash, source_hash  # noqa: E402

import mpcompile as mp  # noqa: E402
from mpcompile import console, cpu, schedules, targets  # noqa: E402
from mpcompile.console import say  # noqa: E402
from mpcompile.errors import MissingDependency, MpError  # noqa: E402
from mpcompile.files import atomic_path  # noqa: E402

PACKAGES = ("brevitas", "torch", "onnx", "onnxruntime", "apache-tvm", "numpy")
TRAINED_BY = [HERE / name for name in ("network.py", "data.py", "train.py")]
COMPILED_BY = [Path(room.__file__).parent for room in (mp, schedules, targets)]
VERIFIED_IMAGES = 4
OTHERS = {"ONNX Runtime int8": "int8.onnx", "ONNX Runtime fp32": "float.onnx"}


class Demo:
    """One run folder and the steps that fill it."""

    def __init__(self, data: datasets.Data, steps: Steps, threads: int):
        self.data, self.steps, self.out, self.threads = data, steps, steps.folder, threads
        self.trained_by = {
            "source": source_hash(TRAINED_BY),
            "data": data.fingerprint,
            "torch": version("torch"),
            "brevitas": version("brevitas"),
        }

    def run(self) -> dict:
        """All steps; the report, which is also in report.json."""
        start = time.perf_counter()
        d = self.data
        say(
            f"images: {d.name}, {len(d.train[0])} to train, {len(d.test[0])} to test, {d.channels}×32×32, "
            f"{d.classes} classes"
        )
        floats = self.train_float()
        quantized = self.train_quantized()
        self.quantize_int8()
        self.compile()
        verified = self.verify()
        report = {
            "data": {"name": d.name, "train": len(d.train[0]), "test": len(d.test[0]), "classes": d.classes},
            "accuracy": {
                "float, in torch": floats["accuracy"],
                "quantized, in torch": quantized["accuracy"],
                **self.accuracy(),
            },
            "layers": self.layers(),
            "verify": verified,
            "threads": self.threads,
            "timing": self.timing(),
            "machine": {
                "cpu": cpu.name(),
                "cores": cpu.cores(),
                "python": platform.python_version(),
                **{name: version(name) for name in PACKAGES},
            },
            "seconds": round(time.perf_counter() - start, 1),
        }
        with atomic_path(self.out / "report.json") as file:
            file.write_text(json.dumps(report, indent=1) + "\n")
        return report

    # -- training and export: Brevitas, and ONNX Runtime's own quantizer ---------------------------------------------
    def train_float(self) -> dict:
        return self._train("float", "train in float", self.trained_by, None)

    def train_quantized(self) -> dict:
        inputs = self.trained_by | {"float": file_hash(self.out / "float.npz")}
        return self._train(
            "model", "train with mixed bitwidths (Brevitas), export to QONNX", inputs, self.out / "float.npz"
        )

    def _train(self, name: str, title: str, inputs, start: Path | None) -> dict:
        """Leaves NAME.npz and NAME.onnx. `start`: the float network's weights that a quantized one begins with."""

        def work(key: str) -> dict:
            import train

            began = time.perf_counter()

            def show(epoch: int, epochs: int, loss: float, accuracy: float) -> None:
                say(
                    f"  epoch {epoch}/{epochs}  loss {loss:.4f}  test {accuracy:.2%}  "
                    f"{time.perf_counter() - began:.0f} s"
                )

            network = train.float_network(self.data) if start is None else train.quantized_network(self.data)
            if start is not None:
                train.start_from(network, train.load(start))
            recipe = train.FLOAT if start is None else train.QUANTIZED
            file = self.out / f"{name}.npz"
            accuracy = train.fit(network, self.data, recipe, file, key, show)
            train.export(network, self.out / f"{name}.onnx", quantized=start is not None)
            return {"accuracy": accuracy}

        return self.steps.run(name, title, inputs, [f"{name}.npz", f"{name}.onnx"], work)

    def quantize_int8(self) -> dict:
        def work(key: str) -> dict:
            from baseline import quantize_int8

            quantize_int8(self.out / "float.onnx", self.out / "int8.onnx", self.data)
            return {}

        inputs = {
            "source": source_hash([HERE / "baseline.py"]),
            "float": file_hash(self.out / "float.onnx"),
            "data": self.data.fingerprint,
            "onnxruntime": version("onnxruntime"),
        }
        return self.steps.run("int8", "quantize the float network to int8 (ONNX Runtime)", inputs, ["int8.onnx"], work)

    # -- mpcompile ---------------------------------------------------------------------------------------------------
    def compile(self) -> dict:
        def work(key: str) -> dict:
            began = time.perf_counter()
            mp.compile(self.out / "model.onnx", target="native", output=self.out / "model.mpc")
            say(f"  {time.perf_counter() - began:.1f} s")
            return {}

        inputs = {
            "model": file_hash(self.out / "model.onnx"),
            "source": source_hash(COMPILED_BY),
            "tvm": version("apache-tvm"),
            "cpu": [cpu.name(), sorted(cpu.features())],
        }
        return self.steps.run("compile", "compile for this CPU", inputs, ["model.mpc"], work)

    def verify(self) -> dict:
        """Every buffer of the bundle, halos included, against the exact reference."""
        say(f"verify against the reference, {VERIFIED_IMAGES} images")
        found = mp.verify(
            self.out / "model.onnx",
            self.out / "model.mpc",
            inputs={"image": datasets.scaled(self.data.test[0][:VERIFIED_IMAGES])},
        )
        say(f"  {found.summary}")
        return {"equal": found.equal, "summary": found.summary, "samples": found.samples, "buffers": len(found.rows)}

    def accuracy(self) -> dict:
        """Top-1 on the test images of what is timed: the bundle, and ONNX Runtime's two networks."""
        from baseline import answers

        from mpcompile.latency.onnxruntime import session

        images, labels = self.data.test
        say(f"run all {len(images)} test images through the bundle and through ONNX Runtime")
        with mp.open_bundle(self.out / "model.mpc", threads=self.threads) as bundle:
            found = {"bundle": bundle.run(datasets.scaled(images)).argmax(1)}
        for label, file in OTHERS.items():
            found[label] = answers(session(str(self.out / file), self.threads), images)
        return {label: float((answer == labels).mean()) for label, answer in found.items()}

    def layers(self) -> list[dict]:
        """What the manifest says of each layer, and its time in seconds."""
        say("time each layer of the bundle")
        with mp.open_bundle(self.out / "model.mpc", threads=self.threads) as bundle:
            times = bundle.profile(x=datasets.scaled(self.data.test[0][:1]))
            return [
                row | ({"seconds": times[row["name"]].seconds} if row["name"] in times else {}) for row in bundle.layers
            ]

    def timing(self) -> dict:
        """Seconds an image, all subjects in turn in one run by the project's measurer."""
        from mpcompile.latency import onnxruntime
        from mpcompile.latency.measure import measure

        say(f"time one image, {self.threads} thread{'s' * (self.threads > 1)}, in turn")
        image = datasets.scaled(self.data.test[0][:1])
        with mp.open_bundle(self.out / "model.mpc", threads=self.threads) as bundle:
            subjects = {"bundle": bundle.timer(image)}
            for label, file in OTHERS.items():
                subjects[label] = onnxruntime.timer(
                    onnxruntime.session(str(self.out / file), self.threads), {"image": image}
                )
            with console.progress("timing") as update:
                found = measure(subjects, rounds=21, min_time=0.02, progress=update)
        say(f"  {found.note()}")
        return found.to_json() | {"ratio": {label: found.ratio(label, "bundle") for label in OTHERS}}


def layer_rows(layers: list[dict]) -> list[list[str]]:
    """A row for each contraction of a layer; the layer's time stands in the first."""
    rows = []
    for layer in layers:
        time = [console.seconds(layer["seconds"])] if "seconds" in layer else [""]
        for part in layer.get("parts", []) or [None]:
            if part is None:
                rows.append([layer["name"], "", "", "", "", *time])
            else:
                o, c, kh, kw = part["kernel"]
                bits = (len(part[grid]["plane_weights"]) for grid in ("weight_grid", "activation_grid"))
                rows.append(
                    [
                        layer["name"] if time != ["+"] else "",
                        f"{c}→{o} {kh}×{kw}",
                        "W{}A{}".format(*bits),
                        part["family"],
                        console.count(part["macs"]),
                        *time,
                    ]
                )
            time = ["+"]
    return rows


def show(report: dict) -> None:
    """The two tables."""
    console.table(
        ["layer", "kernel", "bits", "family", ">MACs", ">time"],
        layer_rows(report["layers"]),
        title="The bundle's layers, each with all that is fused into it",
    )
    rows = []
    for label, accuracy in report["accuracy"].items():
        timing = report["timing"]["timings"].get(label)
        ratio = report["timing"]["ratio"].get(label)
        rows.append(
            [
                label,
                f"{accuracy:.2%}",
                console.seconds(timing["seconds"]) if timing else "",
                f"{timing['spread']:.1%}" if timing else "",
                f"{ratio:.2f}×" if ratio else "",
            ]
        )
    data = report["data"]
    console.table(
        ["network", ">accuracy", ">time", ">spread", ">bundle is faster by"],
        rows,
        title=f"{data['name']}: {data['test']} test images; one image a run, {report['threads']} thread(s)",
    )


def count(text: str) -> int:
    """A whole number from 1, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="IDX or CIFAR-10 folder, or .npz; default: scikit-learn's digits")
    parser.add_argument(
        "--images", type=count, default=datasets.IMAGES, metavar="N", help="how many of the training images to use"
    )
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "runs" / "demo")
    parser.add_argument("--threads", type=count, default=1, metavar="N", help="of the bundle and of ONNX Runtime alike")
    parser.add_argument("--again", action="store_true", help="do every step again")
    options = parser.parse_args(arguments)
    try:
        steps = Steps(options.out, say)
        if options.again:
            steps.forget()
        report = Demo(datasets.load(options.data, options.images), steps, options.threads).run()
    except MpError as error:
        console.complain(str(error))
        return error.exit_code
    except ModuleNotFoundError as error:
        error = MissingDependency(
            f"the demo needs the Python package {error.name}, which is not installed: pip install -e '.[dev]'"
        )
        console.complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        console.complain("interrupted; the next run goes on from here")
        return 130
    show(report)
    say(f"{options.out / 'report.json'}, {options.out / 'model.mpc'}")
    return 0 if report["verify"]["equal"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
