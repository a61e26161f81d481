"""SEV-SNP and TDX: what the VM was launched for, and the evidence of it."""
