"""SCSI disks of a utility VM: SCSIDevice and MappedVirtualDisk."""
