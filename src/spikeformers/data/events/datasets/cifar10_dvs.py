"""CIFAR10-DVS: 10,000 images of CIFAR-10 that move along a closed loop on a screen, before a DVS128.

Source: Li et al., "CIFAR10-DVS: An Event-Stream Dataset for Object Classification", Frontiers in Neuroscience, 2017; figshare.com, article 4724671.
Licence: as stated there.
"""

from ..download import Archive
from ..readers import SUFFIXES
from ._base import EventDataset, register_dataset
from ._layout import CIFAR10, by_class, first_ninety_percent

FIGSHARE = "https://ndownloader.figshare.com/files"


@register_dataset("cifar10_dvs")
class CIFAR10DVS(EventDataset):
    """1,000 recordings of each class in CLASS/*. There is no official split: the first 90 % of each class train, SpikingJelly's rule, which the
    papers use. The order is that of file names as text (..._10 before ..._2), as SpikingJelly's, so that the test recordings are the papers'."""

    sensor = (128, 128)
    classes = CIFAR10
    layout = "CIFAR10-DVS lies in {root}/airplane/*.aedat and nine folders more: --data.download true fetches it"
    archives = tuple(
        Archive(name, f"{name}.zip", f"{FIGSHARE}/{number}", md5)
        for name, number, md5 in (
            ("airplane", 7712788, "0afd5c4bf9ae06af762a77b180354fdd"),
            ("automobile", 7712791, "8438dfeba3bc970c94962d995b1b9bdd"),
            ("bird", 7712794, "a9c207c91c55b9dc2002dc21c684d785"),
            ("cat", 7712812, "52c63c677c2b15fa5146a8daf4d56687"),
            ("deer", 7712815, "b6bf21f6c04d21ba4e23fc3e36c8a4a3"),
            ("dog", 7712818, "f379ebdf6703d16e0a690782e62639c3"),
            ("frog", 7712842, "cad6ed91214b1c7388a5f6ee56d08803"),
            ("horse", 7712851, "e7cbbf77bec584ffbf913f00e682782a"),
            ("ship", 7712836, "41c7bd7d6b251be82557c6cce9a7d5c9"),
            ("truck", 7712839, "89f3922fd147d9aeff89e76a2b0b70a7"),
        )
    )

    def recordings(self, training):
        return first_ninety_percent(by_class(self.there("."), self.classes, SUFFIXES), training)
