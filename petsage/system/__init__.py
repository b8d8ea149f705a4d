"""The features inside the core, written with the public API as any other."""

from petsage.feature import Feature
from petsage.system import docs, health, management, metrics, welcome

SYSTEM_FEATURES: dict[str, Feature] = {
    "system.docs": docs.feature,
    "system.health": health.feature,
    "system.management": management.feature,
    "system.metrics": metrics.feature,
    "system.welcome": welcome.feature,
}
"""The core's own features, by name; a folder cannot have a name with a dot."""
