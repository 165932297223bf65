"""What a prediction for one image takes, from the bare model to HTTP, in one run.

    python benchmarks/bench_serve.py [--repeats 100] [data=fer2013 paths.mlruns=mlruns ...]

With overrides, the champion of that config; without, a random head on the pocket backbone, registered in a temporary
folder: what weights say does not change the speed. The forms take turns, so that what else the machine does falls on
all. MLflow's own handler is its scoring server, in another process of the same kind.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from fer_experiments import tracking
from fer_experiments.config import Config, from_dict, to_dict
from fer_experiments.config.compose import compose
from fer_experiments.serving import loading
from fer_experiments.tracking import models
from fer_experiments.tracking.digests import digests


def register_demo(folder: Path) -> Config:
    """A config with a champion of random weights on the pocket backbone."""
    import keras

    from fer_experiments.backbones.networks import load_backbone
    from fer_experiments.tracking import models

    config = compose(["data=demo", "backbone=pocket", f"paths.mlruns={folder}/mlruns", f"paths.cache={folder}/cache"])
    backbone = load_backbone(config.backbone, (48, 48, 1))
    pixels = keras.Input((48, 48), dtype="uint8")
    features = keras.tree.flatten(backbone.model(keras.ops.expand_dims(pixels, -1), training=False))[0]
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D()(features)
    network = keras.Model(pixels, keras.layers.Dense(2, activation="softmax")(features))
    models.save_classifier(network, ["happy", "other"], folder / "model")
    store = tracking.connect(config)
    with tracking.start_run(store, "promotion", "demo", system_metrics=False) as run:
        run.log_folder(folder / "model", "model")
        version = models.add_version(store, "fer-demo", run.id, digests(folder / "model"), {}, "")
        models.set_alias(store, version, "champion")
    return config


def serve_mlflow(config: Config, port: int) -> None:
    """MLflow's scoring server alone, with the options of ours."""
    import mlflow.pyfunc
    import uvicorn
    from mlflow.pyfunc import scoring_server

    model = mlflow.pyfunc.load_model(str(loading.find_model(config, "champion")[1]))
    app = scoring_server.init(model)
    uvicorn.run(app, port=port, log_level="warning", access_log=False, lifespan="off", ws="none")


@contextmanager
def server(kind: str, config: Config, checkout: Path | None = None) -> Iterator[tuple[http.client.HTTPConnection, int]]:
    """A connection, kept open, to a serving process, of this checkout or another; and its number."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, "--serve", kind, "--port", str(port), "--config", json.dumps(to_dict(config))]
    paths = {"PYTHONPATH": str(checkout)} if checkout else {}
    if checkout:  # by its command: what is asked of it here may have other names there
        places = [f"paths.mlruns={config.paths.mlruns}", f"paths.cache={config.paths.cache}", f"port={port}"]
        command = [sys.executable, "-m", "fer_experiments.cli", "serve", f"data={config.data.name}", *places]
    process = subprocess.Popen(
        command, cwd=checkout, env=os.environ | paths, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        while True:
            try:
                connection.request("GET", "/ping")
                connection.getresponse().read()
                break
            except OSError as error:
                connection.close()
                if process.poll() is not None:
                    raise RuntimeError(f"the {kind} server has ended") from error
                time.sleep(0.2)
        connection.close()  # opened again by the first request: the server closes it when it idles
        yield connection, process.pid
    finally:
        process.terminate()
        process.wait()


def ask(connection: http.client.HTTPConnection, body: str) -> Any:
    """The answer's first row."""
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    return answer["predictions"][0]


def measure(config: Config, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each call, by form."""
    import mlflow.pyfunc
    from PIL import Image

    version, folder = loading.find_model(config, "champion")
    with loading.loading(config, version, folder):
        pyfunc = mlflow.pyfunc.load_model(str(folder))
        classifier, network = pyfunc.unwrap_python_model(), models.load_classifier(folder).network
    image = np.random.default_rng(0).integers(0, 256, (1, *classifier.size), dtype=np.uint8)
    picture = io.BytesIO()
    Image.fromarray(image[0]).save(picture, "PNG")
    lists = json.dumps({"inputs": image.tolist()})
    text = json.dumps({"inputs": [base64.b64encode(picture.getvalue()).decode()]})
    with ExitStack() as stack:
        ours, _ = stack.enter_context(server("ours", config))
        mlflows, _ = stack.enter_context(server("mlflow", config))
        forms: dict[str, Callable[[], object]] = {
            "FaceClassifier.probabilities": lambda: classifier.probabilities(image),
            "Keras predict": lambda: network.predict(image, verbose=0),
            "MLflow pyfunc predict": lambda: pyfunc.predict(image),
            "HTTP, fer serve, nested lists": lambda: ask(ours, lists),
            "HTTP, fer serve, base64 PNG": lambda: ask(ours, text),
            "HTTP, MLflow's own handler, nested lists": lambda: ask(mlflows, lists),
        }
        taken: dict[str, list[float]] = {name: [] for name in forms}
        for number in range(repeats + 10):
            for name, call in forms.items():
                started = time.perf_counter()
                call()
                if number >= 10:  # the first ones compile
                    taken[name].append(1000 * (time.perf_counter() - started))
    return taken


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--config", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        from fer_experiments.serving.serve import serve

        {"ours": serve, "mlflow": serve_mlflow}[options.serve](from_dict(json.loads(options.config)), port=options.port)
        return
    with tempfile.TemporaryDirectory() as folder:
        config = compose(options.overrides) if options.overrides else register_demo(Path(folder))
        taken = measure(config, options.repeats)
    bare = float(np.median(next(iter(taken.values()))))
    load = round(os.getloadavg()[0], 1)
    print(f"one image, milliseconds of {options.repeats} calls, {os.cpu_count()} cores, load {load}")
    print(f"{'':42}{'median':>8}{'p95':>8}{'over the model':>16}")
    for name, values in taken.items():
        median, late = np.percentile(values, [50, 95])
        print(f"{name:42}{median:8.2f}{late:8.2f}{median - bare:16.2f}")


if __name__ == "__main__":
    main()
