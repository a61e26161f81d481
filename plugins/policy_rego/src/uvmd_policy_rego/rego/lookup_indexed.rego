# Asking the indexes, which were made when the policy or a fragment was loaded.
package framework

deviceHash_ok if uvmd.hash_known(input.deviceHash)

containers_with_layers(hashes) := uvmd.containers_with_layers(hashes)

# By their places among the candidates of before: as a whole they would be written out,
# read and compared again at each step.
by_place(containers) := uvmd.kept([at |
	some container in containers
	at := min({i | some i, before in matches; before == container})
])
