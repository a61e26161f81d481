# Asking the index of layers, which was made when the policy or a fragment was loaded: for
# policies that declare plain lists, whatever their rules look at.
package framework

deviceHash_ok if uvmd.hash_known(input.deviceHash)

overlay_matches := uvmd.containers_with_layers(requested_layers) if every_layer_known

overlay_matches := [] if not every_layer_known
