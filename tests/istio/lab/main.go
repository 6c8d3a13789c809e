// Lab makes what a control plane without Kubernetes needs of an example, and writes down what it made
// of it. scripts/istio-lab runs it.
//
//	lab apiserver SCENARIO [-listen ADDRESS] [-stock FILE]
//	                                           serves what a Kubernetes API server would hold
//	lab bootstrap SCENARIO -discovery ADDRESS  the bootstrap of the scenario's proxy
//	lab config SCENARIO                        the filter's configuration
//	lab pods SCENARIO                          address and name of each pod, one on a line
//	lab capture SCENARIO -istio VERSION -discovery ADDRESS -debug URL
//	                                           the golden file, from the control plane, which is asked
//	                                           as the scenario's proxy would ask
//	lab capture SCENARIO -istio VERSION -admin URL
//	                                           the golden file, from the admin interface of the proxy
//
// Everything is printed.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"

	"meshgate/tests/istio/golden"
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
	if len(arguments) < 2 {
		return errors.New("apiserver, bootstrap, config, pods or capture, then a scenario")
	}
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	stock := flags.String("stock", "", "the module's file, for a proxy that is a stock Envoy")
	listen := flags.String("listen", "127.0.0.1:0", "where the API is served")
	discovery := flags.String("discovery", "", "host:port of the control plane, without TLS")
	debug := flags.String("debug", "", "the control plane's HTTP address, http://…, for its /debug")
	admin := flags.String("admin", "", "Envoy's admin interface, http://…")
	istio := flags.String("istio", "", "the control plane's version")
	if err := flags.Parse(arguments[2:]); err != nil {
		return err
	}
	name := arguments[1]
	proxy, known := proxies[name]
	if !known {
		return fmt.Errorf("nothing is known of the scenario %q", name)
	}
	objects, err := golden.Scenario(resources, name)
	if err != nil {
		return err
	}
	switch arguments[0] {
	case "apiserver":
		all, err := applied(objects, *stock)
		if err != nil {
			return err
		}
		return newAPIServer(all).serve(*listen)
	case "bootstrap":
		document, err := bootstrap(proxy, *discovery)
		if err != nil {
			return err
		}
		return print(document)
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
	case "pods":
		for _, pod := range pods {
			fmt.Println(pod.address, pod.name)
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
	return fmt.Errorf("there is no %q", arguments[0])
}

func print(value any) error {
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	return out.Encode(value)
}
