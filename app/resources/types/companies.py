"""Companies: organizations, by the sender's own key."""

from typing import Final

from msgspec.structs import replace

from app.resources.declaration import ID, Field, Kind, Resource

_COUNTRIES: Final = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC
CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD
GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH
KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW
MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC
SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY
UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
"""ISO 3166-1 alpha-2."""

COMPANIES: Final = Resource(
    type_id=2,
    name="companies",
    singular="company",
    objects={"hubspot": "companies", "salesforce": "Account"},
    example={"id": "acme", "name": "Acme Ltd", "domain": "acme.example", "country": "GB", "employees": 120},
    id=replace(
        ID,
        meant_by="companyid accountid externalid uid key",
        headers="id, uid, key, external id, company id, account id, account id 18, record id, customer id,"
        "customer number, customer no, account number, kundennummer, kunden nr, firmennummer, numero client,"
        "numero de cliente",
    ),
    fields=(
        Field(
            name="name",
            required=True,
            fills=False,
            at={"salesforce": "Name"},
            meant_by="companyname accountname organization organisation company",
            headers="name, company, company name, account name, organization, organization name, organisation, firma,"
            "firmenname, unternehmen, unternehmensname, societe, nom de l entreprise, raison sociale, empresa,"
            "nombre de la empresa, razon social",
        ),
        Field(
            name="domain",
            longest=253,
            at={"salesforce": "Website"},
            meant_by="website url homepage web",
            headers="domain, company domain name, domain name, website, website url, web site, url, homepage, webseite,"
            "internetseite, site web, site internet, sitio web, pagina web",
        ),
        Field(
            name="phone",
            kind=Kind.PHONE,
            at={"salesforce": "Phone"},
            meant_by="phonenumber telephone tel",
            headers="phone, phone number, telephone, tel, main phone, business phone, company phone, telefon,"
            "telefonnummer, numero de telephone, telefono, numero de telefono",
        ),
        Field(
            name="industry",
            at={"salesforce": "Industry"},
            meant_by="branch sector",
            headers="industry, sector, branche, wirtschaftszweig, secteur, secteur d activite, industria",
        ),
        Field(
            name="street",
            at={"hubspot": "address", "salesforce": "BillingStreet"},
            meant_by="address address1 addressline1 streetaddress",
            headers="street, street address, address, address line 1, billing street, strasse, adresse, rue, calle,"
            "direccion",
        ),
        Field(
            name="city",
            at={"salesforce": "BillingCity"},
            meant_by="town locality",
            headers="city, town, billing city, ort, stadt, ville, ciudad, poblacion",
        ),
        Field(
            name="postal_code",
            longest=20,
            at={"hubspot": "zip", "salesforce": "BillingPostalCode"},
            meant_by="zip zipcode postcode plz",
            headers="postal code, post code, postcode, zip, zip code, billing zip postal code, billing postal code,"
            "plz, postleitzahl, code postal, codigo postal",
        ),
        Field(
            name="country",
            choices=tuple(_COUNTRIES.split()),
            at={"salesforce": "BillingCountry"},
            meant_by="countrycode",
            headers="country code, country, country region, billing country, land, landeskennzeichen, pays, pais",
        ),
        Field(
            name="employees",
            kind=Kind.INTEGER,
            least=0,
            at={"hubspot": "numberofemployees", "salesforce": "NumberOfEmployees"},
            meant_by="employeecount numberofemployees headcount staff",
            headers="employees, number of employees, employee count, headcount, mitarbeiter, mitarbeiterzahl,"
            "anzahl mitarbeiter, effectif, nombre d employes, empleados, numero de empleados",
        ),
        Field(
            name="annual_revenue",
            kind=Kind.NUMBER,
            at={"hubspot": "annualrevenue", "salesforce": "AnnualRevenue"},
            meant_by="revenue turnover sales",
            headers="annual revenue, revenue, turnover, umsatz, jahresumsatz, chiffre d affaires, ingresos anuales,"
            "facturacion anual",
        ),
    ),
)
