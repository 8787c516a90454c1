"""Package metadata; tool settings and the build backend are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
# One distribution, whose base is what an application that only runs LiteRT files needs: a quarter of a gigabyte. pip's
# extras can add but never leave out, so the large part is the extra: [train] brings Keras and TensorFlow, and what fit,
# pruning, figures, the samples and export need beside them. Two distributions would be two versions that must agree.
# The backend is the user's choice, as in Keras, KerasHub and transformers: a TPU host has tensorflow-tpu, which stock
# tensorflow must not be installed over. What is missing is said by tfxformer/extras.py, with its pip line.
RUNTIME = [
    "numpy>=1.26",
    "tokenizers>=0.21",
    "jinja2>=3.1.6",  # chat templates
    "ai-edge-litert>=2.1",
    "flatbuffers>=25",
    "typer>=0.15",
    "rich>=13",
]
TRAIN = [
    "tensorflow>=2.20,<2.22",
    "keras>=3.15",
    "ml_dtypes>=0.5",
    "huggingface_hub>=0.30",
    "tensorflow-model-optimization>=0.8.1",
    "matplotlib>=3.8",
    "pyyaml>=6",
    "unearth>=0.17",  # reads the package index for the samples
]
# What trains where JAX is: a TPU host, or GPUs. Colab's images hold Keras 3.13 and JAX 0.7. jax[cuda12] or jax[tpu] is
# the user's own line, as JAX's page has it; export is TensorFlow's.
JAX = ["keras>=3.13", "jax>=0.7", *(package for package in TRAIN if not package.startswith(("tensorflow", "keras")))]
GGUF = ["gguf>=0.10"]
PARQUET = ["pyarrow>=15"]
METRICS = ["sacrebleu>=2.4", "rouge-score>=0.1.2"]
TENSORBOARD = ["tensorboard>=2.20"]
TUNE = ["keras-tuner>=1.4.7", "scipy>=1.11", "scikit-learn>=1.4"]  # the last two: its Bayesian search
NOTEBOOK = ["nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6.29"]
TEST = [
    *("pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", "ruff>=0.6", "mypy>=1.13", "keras-hub>=0.32"),
    *("pandas>=2.2", "seqeval>=1.2.2", "scikit-learn>=1.4", "scipy>=1.11"),  # the last three: references of scores
    "python-crfsuite>=0.9.11",  # a baseline of applications/chinese
    "sentencepiece>=0.2",  # trains tokenizers, and cuts texts as they must be cut
    *(*GGUF, *METRICS, *PARQUET, *TENSORBOARD, *TUNE, *NOTEBOOK, "tfxformer[train]"),
]
REFERENCE = [
    "torch>=2.8",
    "transformers>=5.0",
    "safetensors>=0.5",
    "peft>=0.18",
    "sentence-transformers>=5",
    "datasets>=3",
]
DOCS = ["sphinx>=8.1", "myst-parser>=4", "furo>=2024.8.6", "sphinx-copybutton>=0.5.2"]

setup(
    name="tfxformer",
    version="0.15.0",
    description="From a Transformer checkpoint to a phone, in Keras: exact, trained with fit, pruned, LiteRT.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["tfxformer", "tfxformer.*"]),
    package_data={
        "tfxformer": ["py.typed"],
        "tfxformer.recipes": ["zoo.json"],
        "tfxformer.runtime.apps": ["templates/**/*"],
        "tfxformer.runtime.page": ["check.mjs", "static/*", "static/*/*"],
    },
    install_requires=RUNTIME,
    extras_require={
        "train": TRAIN,
        "jax": JAX,
        "test": TEST,
        "reference": REFERENCE,
        "docs": [*DOCS, "tfxformer[train]"],  # the reference is made of the package, imported
        "gguf": GGUF,
        "metrics": METRICS,
        "parquet": PARQUET,
        "int4": ["ai-edge-quantizer>=0.10"],
        "tpu-check": ["jax>=0.6", "libtpu>=0.0.20"],
        "litertlm": ["litert-lm-builder>=0.18"],
        "text": ["tensorflow-text>=2.20,<2.22"],
        "beam": ["apache-beam>=2.70"],
        "tensorboard": TENSORBOARD,
        "tune": TUNE,
        "wandb": ["wandb>=0.19"],
        "benchmark": [
            "tfxformer[train]",
            *REFERENCE,
            *GGUF,
            "onnx",
            "onnxruntime",
            "openvino",
            "nncf",
            "keras-hub>=0.32",
            "llama-cpp-python",
            "ctranslate2",
        ],
    },
    entry_points={"console_scripts": ["tfxformer=tfxformer.cli.main:main"]},
)
