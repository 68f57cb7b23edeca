"""What a training takes from its data where nobody gives it: the model's classes."""

from __future__ import annotations

import logging

from omegaconf import DictConfig

from src.annotations.classes import ClassList, classes_of_data
from src.config import overridden_keys, to_plain
from src.datamodules.datamodule import CompetitionDataModule

log = logging.getLogger(__name__)

DEFAULT_NUM_CLASSES = 46  # of conf/module, the competition's


def take_classes(config: DictConfig, datamodule: CompetitionDataModule) -> ClassList:
    """Set the model's classes to the data's categories, before the model is built.

    ``module.num_classes``, ``module.category_ids`` and ``datamodule.category_ids`` are set in the
    composed configuration and in the datamodule. Names stay out of the configuration, which would
    resolve ``${...}`` in them.

    Raises:
        InputError: what the user gives contradicts the data.
    """
    module = config.module
    store = datamodule.open_store()
    instances = store.instances_by_category()
    is_given = (
        module.num_classes != DEFAULT_NUM_CLASSES or "module.num_classes" in overridden_keys()
    )
    source = str(datamodule.train_annotations)
    classes = classes_of_data(
        store.labels,
        instances,
        num_classes=module.num_classes if is_given else None,
        category_ids=to_plain(module.category_ids),
        source=source,
    )
    category_ids = list(classes.category_ids)
    module.num_classes, module.category_ids = len(category_ids), category_ids
    config.datamodule.category_ids = datamodule.category_ids = category_ids
    log.info("%d classes, the categories of %s: %s", len(category_ids), source, classes)
    if empty := classes.only([key for key in category_ids if not instances.get(key)]):
        log.warning(
            "%d of them have no instance in %s, so nothing is learnt of them: %s",
            len(empty),
            source,
            empty,
        )
    if others := ClassList.of(store.labels).only({*store.category_ids}.difference(category_ids)):
        log.warning("categories of %s that are no class of the model: %s", source, others)
    return classes
