// lab is what scripts/istio-lab needs beside Istio's and Kubernetes' own programs.
//
//	lab node -server URL …    stands in for a cluster's node and its kubelet: runs what pods say
//	                          (package node; as `lab container FILE` it becomes one of them)
//	lab registry -images FOLDER -listen ADDRESS
//	                          serves the images that scripts/image wrote
//	lab crds                  the files of the CRDs that the examples need, for `kubectl apply -f`
//	lab stock                 what a stock Envoy needs left out of what Istio sends
//	lab config SCENARIO       the plugin's configuration
//
// To capture, without a node:
//
//	lab objects SCENARIO      the example, and the pods that its Deployments would have made
//	lab pods SCENARIO         those pods: NAMESPACE NAME, and the status that a kubelet would report
//	lab capture SCENARIO -istio VERSION -discovery ADDRESS -debug URL
//	                          the golden file, from the control plane, which is asked as the
//	                          scenario's proxy would ask
//	lab capture SCENARIO -istio VERSION -admin URL
//	                          the golden file, from the admin interface of the proxy
//
// Everything is printed.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"meshgate/tests/istio/golden"
	"meshgate/tests/istio/node"
	"meshgate/tests/istio/schema"
)

// resources is seen from this module's folder, in which `go -C` runs this.
const resources = "../../istio"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("node, registry, crds, stock, config, objects, pods or capture")
	}
	what, rest := arguments[0], arguments[1:]
	switch what {
	case "node":
		return runNode(rest)
	case "container":
		return node.Become(rest[0])
	case "registry":
		flags := flag.NewFlagSet(what, flag.ContinueOnError)
		images := flags.String("images", "", "the folder of the layouts")
		listen := flags.String("listen", "127.0.0.1:0", "where it is served")
		if err := flags.Parse(rest); err != nil {
			return err
		}
		return registry{*images}.serve(*listen)
	case "crds":
		files, err := schema.Files()
		for _, file := range files {
			fmt.Println(file)
		}
		return err
	case "stock":
		return print(withoutALPN())
	}
	if len(rest) == 0 {
		return fmt.Errorf("%s of which scenario?", what)
	}
	return ofScenario(what, rest[0], rest[1:])
}

func runNode(arguments []string) error {
	flags := flag.NewFlagSet("node", flag.ContinueOnError)
	var config node.Config
	flags.StringVar(&config.Server, "server", "", "the API server, https://…")
	flags.StringVar(&config.Token, "token", "", "a token with every right")
	flags.StringVar(&config.State, "state", "", "a folder for what pods leave behind")
	flags.StringVar(&config.Logs, "logs", "", "a folder for what pods print")
	flags.StringVar(&config.Images, "images", "", "the folder of scripts/image")
	flags.StringVar(&config.Programs, "programs", "", "a file of what stands for other images")
	flags.StringVar(&config.HostNames, "hosts", "", "further lines of /etc/hosts")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	made, err := node.New(config)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() { <-signals; close(stop) }()
	fmt.Println("running")
	made.Run(stop)
	return nil
}

func ofScenario(what, name string, arguments []string) error {
	flags := flag.NewFlagSet(what, flag.ContinueOnError)
	discovery := flags.String("discovery", "", "host:port of the control plane, without TLS")
	debug := flags.String("debug", "", "the control plane's HTTP address, http://…, for its /debug")
	admin := flags.String("admin", "", "Envoy's admin interface, http://…")
	istio := flags.String("istio", "", "the control plane's version")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	proxy, known := proxies[name]
	if !known {
		return fmt.Errorf("nothing is known of the scenario %q", name)
	}
	objects, err := golden.Scenario(resources, name)
	if err != nil {
		return err
	}
	switch what {
	case "config":
		for _, object := range objects {
			if object.GetKind() == "WasmPlugin" {
				config, err := object.Config()
				if err != nil {
					return err
				}
				fmt.Println(string(config))
			}
		}
		return nil
	case "objects":
		all, err := applied(objects)
		if err != nil {
			return err
		}
		return print(map[string]any{"apiVersion": "v1", "kind": "List", "items": all})
	case "pods":
		for _, pod := range podsOf(objects) {
			status, err := json.Marshal(map[string]any{"status": pod.status()})
			if err != nil {
				return err
			}
			fmt.Println(pod.namespace, pod.name, string(status))
		}
		return nil
	case "capture":
		if *istio == "" {
			return errors.New("-istio must name the control plane's version")
		}
		file := golden.File{Scenario: name, Istio: *istio, Node: proxy.node()}
		if file.Examples, err = golden.Fingerprint(objects); err != nil {
			return err
		}
		source := source(proxySource{*admin})
		if *admin == "" {
			source = controlPlane{*discovery, *debug, proxy}
		}
		if err := capture(source, &file); err != nil {
			return err
		}
		return print(file)
	}
	return fmt.Errorf("there is no %q", what)
}

func print(value any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	return out.Encode(value)
}
