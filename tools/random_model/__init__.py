"""Random-weight GGUF models with a real vocabulary, for tests and benchmarks.

Speed does not depend on the weights, and a scheduler or cache error shows in random output as it
does in sensible output, so neither the tests nor the benchmarks need a download.
"""

from tools.random_model.architectures import ARCHITECTURES
from tools.random_model.blocks import QTYPES
from tools.random_model.shapes import SHAPES, Shape
from tools.random_model.vocabulary import available_vocabularies
from tools.random_model.writer import write_model

__all__ = ["ARCHITECTURES", "QTYPES", "SHAPES", "Shape", "available_vocabularies", "write_model"]
