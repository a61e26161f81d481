"""The commands: ``uvmd``, ``uvmctl`` and ``gcs``. Only here and in ``daemon`` do we print or exit."""
