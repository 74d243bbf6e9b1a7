# The front door: what `import spikeformers` offers. __init__.py reads this file too, and loads each name when it is first used.
from . import (
    data as data,
    evaluation as evaluation,
    kernels as kernels,
    layers as layers,
    measure as measure,
    models as models,
    neurons as neurons,
    plots as plots,
    profiling as profiling,
    tasks as tasks,
    training as training,
    transforms as transforms,
)
from .models import (
    create_model as create_model,
    list_models as list_models,
    list_tasks as list_tasks,
    load_published as load_published,
    save_model as save_model,
)
from .profiling import audit as audit, estimate as estimate, profile as profile
from .transforms import convert as convert, event_driven as event_driven, merge as merge, shrink as shrink

__version__: str
