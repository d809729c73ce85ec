// Package deploy keeps the images of one firewall on a host: which one is to run, which ran
// before, and how one takes the other's place, so that nothing is lost when a disk is full
// or the power fails between any two steps.
//
//	folder.go  the folder, and the steps that change it
//	record.go  the record: which image is current, and since when
//	store.go   taking an image in, preparing a change, making it, and recovering
//
// The folder of a firewall, /var/lib/thurward/NAME, has
//
//	state.json         the record; what it says is what is to run
//	current, previous  links to images, for people and scripts; made from the record
//	images/            images by their SHA-256
//	lock, running      locked by who changes the folder, and by the service that runs
//	control            the socket of the service that runs
package deploy
