# Asking the indexes, which were made when the policy or a fragment was loaded.
package framework

deviceHash_ok if uvmd.hash_known(input.deviceHash)

containers_with_layers(hashes) := uvmd.containers_with_layers(hashes)
