# Looking through everything at every question: for policies whose declarations may
# differ from one question to the next.
package framework

deviceHash_ok if input.deviceHash in layer_hashes

containers_with_layers(_) := candidate_containers

by_place(containers) := containers
