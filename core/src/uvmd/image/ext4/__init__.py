"""ext4 as layer images need it: written once, read-only, every byte determined by the tree.

The format is the kernel's (Documentation/filesystems/ext4, fs/ext4/ext4.h); nothing that only
helps a filesystem to change is written: no journal, no checksums, no directory index, no
backup superblocks. Decision record 0005 says why this is not left to mke2fs.
"""
