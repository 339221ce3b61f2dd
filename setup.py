"""Packaging of espilot; `pip install .` gives the commands `espilot` and `fake-payload`."""

from setuptools import find_packages, setup

SERVER = ["aiohttp>=3.10"]
DEMO = [
    "pythia8mc>=8.312",
    "uproot>=5.3",
    "numpy>=1.26",
    "awkward>=2.6",
    "matplotlib>=3.8",
    "mplhep>=0.3.40",
]
METRICS = ["prometheus-client>=0.20"]
TEST = [
    *SERVER,
    *METRICS,
    "pytest>=8.0",
    "pytest-xdist>=3.7",
    "hypothesis>=6.100",
    "mypy>=1.10",
    "ruff>=0.5",
    "types-requests",
    "psutil>=5.9.5",
    "types-psutil",
]

setup(
    name="espilot",
    version="0.1.0",
    description="A pilot for the event service: every range ends safe and reported, or goes back",
    python_requires=">=3.11",
    packages=find_packages(include=["espilot", "espilot.*"]),
    package_data={"espilot": ["py.typed", "view/assets/*"]},
    install_requires=[
        "pyzmq>=25.1",
        "msgpack>=1.0.5",
        "lmdb>=1.4.1",
        "isal>=1.7",
        "requests>=2.31",
        "ijson>=3.2.3",
        "boto3>=1.36",
        "rich>=13.0",
    ],
    extras_require={"server": SERVER, "metrics": METRICS, "demo": DEMO, "test": TEST},
    entry_points={
        "console_scripts": [
            "espilot = espilot.cli.main:run",
            "fake-payload = espilot.payload.fake.main:run",
        ]
    },
)
