// Package service runs one firewall from its folder (package deploy): it boots the current
// image, starts it again after crashes, and replaces it, on request, by another whose
// machine is up before the old one gives up its place.
//
//	service.go  the machine that runs, and requests to change it
//	change.go   a change: start, check, switch, watch, and commit or go back
//	health.go   what is checked of a machine
//	status.go   what there is to tell
//	control.go  the socket by which requests come
//	client.go   its other end
package service
