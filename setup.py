"""Metadata and console scripts of swinmpi."""
import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+?)"', (here / "swinmpi" / "__init__.py").read_text()).group(
    1)
commands = ["prepare", "train", "calibrate", "sample", "evaluate", "benchmark", "merge",
            "experiment", "info", "verify"]

setup(
    name="swinmpi",
    version=version,
    description="Super-resolution of HDF5 image stacks by diffusion, "
    "one image's sampling shared by many MPI ranks",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    # swinmpi-experiment reads configs/ where there is no checkout.
    packages=[*find_packages(include=["swinmpi", "swinmpi.*"]), "swinmpi.experiments.configs"],
    package_dir={"swinmpi.experiments.configs": "configs"},
    package_data={"swinmpi.benchmarks.network": ["*.sh"],
                  "swinmpi.experiments.configs": ["experiments/*.yaml", "train/*.yaml"],
                  "swinmpi.demo": ["*.h5", "*.safetensors", "*.md", "*.json"]},
    install_requires=[
        "torch>=2.3", "mpi4py>=4.0", "h5py>=3.10", "numpy>=1.26", "pillow>=10",
        "tifffile>=2024.1", "lpips>=0.1.4", "pyyaml>=6", "pydantic>=2.5", "safetensors>=0.4",
        "scikit-image>=0.22", "tqdm>=4.60",
    ],
    extras_require={
        "mpi": ["mpich>=4.2"],
        "plot": ["matplotlib>=3.7"],
        "fid": ["torch-fidelity>=0.4"],
        "filters": ["hdf5plugin>=4", "imagecodecs>=2024.1"],
        "test": ["pytest>=8", "pytest-xdist>=3.3", "hypothesis>=6.90", "diffusers>=0.30",
                 "matplotlib>=3.7", "xarray", "h5netcdf", "netCDF4", "nexusformat", "silx",
                 "imagecodecs>=2024.1", "mpich>=4.2", "torch-fidelity>=0.4"],
    },
    entry_points={"console_scripts": [f"swinmpi-{name} = swinmpi.cli.{name}:main"
                                      for name in commands]},
)
