"""The full int8 VGG16 on this machine, or any other ONNX file: Spotter beside its peers, in turns, as ratios.

    python peers.py --spotter target/release/spotter --models target/peers [--threads 1 2] [--rounds 5] [--runs 7] [--engines ...] [--json]
    python peers.py --model mobilenet.onnx [...]

In each round every engine is measured once, in a process of its own that ends before the next one begins, so that none has the other's threads or caches
beside it; what is shown is the median over the rounds of each engine's median. Load and a warm-up are not in the times. Each engine gets the form of the
network that it is fastest with: OpenVINO takes the QDQ form, Spotter and onnxruntime QLinearConv, LiteRT and ncnn files of their own. With `--model` Spotter and
onnxruntime get that file. `--strategy direct` is Spotter without Winograd.
"""
import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ENGINES = ["spotter", "openvino", "litert", "onnxruntime", "ncnn"]
# Those that take any ONNX file, quantised as onnxruntime writes it.
GENERAL = ["spotter", "onnxruntime"]
MANIFEST = """[input]
name = "{name}"
size = [{height}, {width}]
preprocess = "torchvision"

[output]
kind = "logits"
"""


def timed(run, runs):
    for _ in range(2):
        run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def openvino(models, threads, runs):
    import numpy as np
    import openvino as ov

    core = ov.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(str(models / "vgg16-qdq.onnx"), "CPU", options)
    request, data = compiled.create_infer_request(), np.zeros((1, 3, 224, 224), np.float32)
    return timed(lambda: request.infer({0: data}), runs)


def onnxruntime(models, threads, runs):
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    path = models if models.is_file() else models / "vgg16-qoperator.onnx"
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    [image] = session.get_inputs()
    data = np.zeros([side if isinstance(side, int) else 1 for side in image.shape], np.float32)
    return timed(lambda: session.run(None, {image.name: data}), runs)


def litert(models, threads, runs):
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(models / "vgg16.tflite"), num_threads=threads)
    interpreter.allocate_tensors()
    image = interpreter.get_input_details()[0]["index"]
    interpreter.set_tensor(image, np.zeros((1, 224, 224, 3), np.int8))
    return timed(interpreter.invoke, runs)


def ncnn(models, threads, runs):
    import ncnn as engine
    import numpy as np

    net = engine.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = threads, False
    if net.load_param(str(models / "vgg16.ncnn.param")) or net.load_model(str(models / "vgg16.ncnn.bin")):
        raise SystemExit("ncnn cannot read its model")
    image = engine.Mat(np.zeros((3, 224, 224), np.float32))
    last = net.output_names()[0]

    def run():
        extractor = net.create_extractor()
        extractor.input("t0", image)
        error, scores = extractor.extract(last)
        if error or scores.w != 1000:
            raise SystemExit(f"ncnn failed with {error}")

    return timed(run, runs)


def one(arguments):
    """A single measurement of a Python engine, in this process."""
    engines = {"openvino": openvino, "litert": litert, "onnxruntime": onnxruntime, "ncnn": ncnn}
    median = engines[arguments.one](arguments.models, arguments.threads[0], arguments.runs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"median_ms": median, "peak_rss_bytes": peak}))


def measure(engine, threads, arguments):
    if engine == "spotter":
        path = arguments.models if arguments.models.is_file() else arguments.models / "vgg16-qoperator.onnx"
        command = [arguments.spotter, "bench", "--model", path, "--strategy", arguments.strategy, "--format", "json"]
    else:
        command = [sys.executable, __file__, "--one", engine, "--models", arguments.models]
    command += ["--threads", threads, "--runs", arguments.runs]
    result = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return json.loads(result.stdout[result.stdout.index("{"):])


def with_manifest(path, folder):
    """The model's path, or where there is no manifest beside it that of a link in `folder` with one that serves to measure."""
    if path.with_suffix(".toml").exists():
        return path
    import onnx

    image = onnx.load(str(path)).graph.input[0]
    height, width = (dim.dim_value for dim in image.type.tensor_type.shape.dim[-2:])
    link = folder / path.name
    link.symlink_to(path.resolve())
    link.with_suffix(".toml").write_text(MANIFEST.format(name=image.name, height=height, width=width))
    return link


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spotter", default="target/release/spotter")
    parser.add_argument("--models", type=pathlib.Path, default=pathlib.Path("target/peers"), help="the folder with VGG16's forms")
    parser.add_argument("--model", type=pathlib.Path, help="an ONNX file instead of VGG16")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, help="which ones; Spotter is always there")
    parser.add_argument("--strategy", default="auto", help="how Spotter computes convolutions: auto, direct, winograd")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", choices=ENGINES[1:], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        return one(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model:
            arguments.models = with_manifest(arguments.model, pathlib.Path(folder))
        compare(arguments)


def compare(arguments):
    known = GENERAL if arguments.model else ENGINES
    engines = [engine for engine in known if engine == "spotter" or engine in (arguments.engines or known)]
    table = []
    for threads in arguments.threads:
        rounds = []
        for number in range(arguments.rounds):
            print(f"{threads} threads, round {number + 1} of {arguments.rounds}", file=sys.stderr)
            rounds.append({engine: measure(engine, threads, arguments) for engine in engines})
        for engine in engines:
            ratios = [turn["spotter"]["median_ms"] / turn[engine]["median_ms"] for turn in rounds]
            median = statistics.median(turn[engine]["median_ms"] for turn in rounds)
            peak = max(turn[engine]["peak_rss_bytes"] for turn in rounds)
            row = {"engine": engine, "threads": threads, "median_ms": median, "spotter_to_it": statistics.median(ratios)}
            table.append({**row, "ratio_range": [min(ratios), max(ratios)], "peak_rss_mb": peak / 1e6})
    if arguments.json:
        return print(json.dumps(table, indent=1))
    print(f"{'engine':14} {'threads':>7} {'ms':>8} {'Spotter : it':>13} {'range':>15} {'peak MB':>8}")
    for row in table:
        low, high = row["ratio_range"]
        ratios = f"{row['spotter_to_it']:13.2f} {f'{low:.2f} to {high:.2f}':>15}"
        print(f"{row['engine']:14} {row['threads']:7} {row['median_ms']:8.1f} {ratios} {row['peak_rss_mb']:8.0f}")


if __name__ == "__main__":
    main()
